from __future__ import annotations

import numpy as np
import pytest

from morphoclip import schema
from morphoclip.data import CellDataModule, ShardDataset
from morphoclip.data.sampling.balanced import Balanced, Wells
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import EpochSampler


@pytest.fixture(scope="module")
def mixture(screen) -> Mixture:
    return Mixture([ShardDataset(screen)])


def batches_of(mixture, plan, epoch=0):
    return [mixture.fields.iloc[mixture.fields_of(plan.rows(epoch, step))] for step in range(plan.steps)]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_batch_holds_more_wells_of_a_perturbation_than_asked(mixture, most):
    plan = Wells(mixture, 10, 0, wells_per_perturbation=most)
    for fields in batches_of(mixture, plan):
        assert len(fields) == 10
        counts = fields[schema.PERTURBATION].value_counts()
        assert counts.max() <= most
        assert counts.index.isin(["cpd-00"]).sum() <= 1
        assert not fields.duplicated([schema.PLATE, schema.WELL]).any()
        assert not fields[schema.CONTROL_TYPE].eq("empty").any()


def test_wells_of_a_perturbation_come_from_different_plates(mixture):
    for fields in batches_of(mixture, Wells(mixture, 12, 0, wells_per_perturbation=2)):
        for _, wells in fields.groupby(schema.PERTURBATION):
            assert not wells[schema.PLATE].duplicated().any()


def test_a_round_shows_every_perturbation_once(mixture):
    plan = Wells(mixture, 11, 0, wells_per_perturbation=1)  # 22 perturbations
    assert plan._round_steps == 2
    for round_ in range(3):
        rows = np.concatenate([plan.rows(0, step) for step in (2 * round_, 2 * round_ + 1)])
        names = mixture.fields[schema.PERTURBATION].iloc[mixture.fields_of(rows)]
        assert names.value_counts().to_dict() == dict.fromkeys(names.unique(), 1)
        assert len(names) == 22


@pytest.mark.parametrize("by", [schema.PERTURBATION, schema.MODALITY, schema.PLATE])
def test_classes_come_equally_often_whatever_their_size(mixture, by):
    fields = mixture.fields[mixture.fields[by] != ""]
    assert by == schema.PLATE or fields[by].value_counts().nunique() > 1
    plan = Balanced(mixture, 16, 0, by=by, steps_per_epoch=30)
    shown = np.concatenate([plan.rows(0, step) for step in range(30)])
    names = mixture.fields[by].iloc[mixture.fields_of(shown)]
    counts = names.value_counts()
    assert set(counts.index) == set(fields[by])
    assert np.ptp(counts) <= 1
    times = np.bincount(shown, minlength=len(mixture))
    for value in counts.index:  # a class repeats a crop only after showing all
        own = times[mixture.fields[by].iloc[mixture.fields_of(np.arange(len(mixture)))] == value]
        assert np.ptp(own) <= 1


def test_a_column_that_is_not_there_or_blank_is_named(mixture):
    with pytest.raises(ValueError, match=r"no column 'Metadata_colour'.*Metadata_Plate"):
        Balanced(mixture, 4, 0, by="Metadata_colour")
    with pytest.raises(ValueError, match="Metadata_moa is blank"):
        Balanced(mixture, 4, 0, by=schema.MOA)
    with pytest.raises(ValueError, match="22 perturbations with at most 1 wells each give 22"):
        Wells(mixture, 23, 0, wells_per_perturbation=1)


@pytest.mark.parametrize("make", [lambda m: Wells(m, 10, 5), lambda m: Balanced(m, 10, 5)], ids=["wells", "balanced"])
def test_any_step_is_drawn_alone_and_ranks_share_it(mixture, make):
    straight = [make(mixture).rows(1, step) for step in range(4)]
    plan = make(mixture)
    for step in (3, 0, 2):
        np.testing.assert_array_equal(plan.rows(1, step), straight[step])
    ranks = [list(EpochSampler(plan, rank, 2)) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == plan.steps
    np.testing.assert_array_equal(np.sort(np.concatenate([ranks[0][0], ranks[1][0]])), np.sort(plan.rows(0, 0)))


@pytest.mark.parametrize(
    ("sampler", "options"), [("wells", {"wells_per_perturbation": 3}), ("balanced", {"by": schema.GENE})]
)
def test_the_data_module_knows_them(screen, sampler, options):
    datamodule = CellDataModule([{"root": screen}], 8, sampler, sampler_options=options)
    assert next(iter(datamodule.train_dataloader())).images.shape == (8, 5, 8, 8)
