from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.data.sampling.active_bags import ActiveBags
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import Bags, EpochSampler, Sequential, Uniform


@pytest.fixture(scope="module")
def mixture(screen) -> Mixture:
    return Mixture([ShardDataset(screen)])


def epoch_rows(plan, epoch=0):
    return np.stack([plan.rows(epoch, step) for step in range(plan.steps)])


def test_uniform_shows_every_crop_once_an_epoch(mixture):
    plan = Uniform(mixture, 30, seed=0)
    rows = epoch_rows(plan).ravel()
    assert len(rows) == len(mixture) // 30 * 30
    assert len(np.unique(rows)) == len(rows)
    assert rows.max() < len(mixture)
    assert not np.array_equal(rows, epoch_rows(plan, epoch=1).ravel())
    assert not np.array_equal(rows, epoch_rows(Uniform(mixture, 30, seed=1)).ravel())


def test_weights_say_how_often_a_crop_is_shown(make_screen, rows_of_screen):
    small, large = make_screen(rows_of_screen[:10], name="small"), make_screen(name="large")
    mixture = Mixture([ShardDataset(small), ShardDataset(large)], weights=[5, 1])
    rows = epoch_rows(Uniform(mixture, 24, seed=3)).ravel()
    shown = np.bincount(rows, minlength=len(mixture))
    share = 5 * 40 / (5 * 40 + mixture.sizes[1])
    assert shown[:40].sum() == pytest.approx(share * len(rows), abs=1)
    assert np.ptp(shown[:40]) <= 1  # repeats only after all were shown
    assert shown[40:].max() == 1


def test_a_batch_larger_than_the_dataset_is_refused(mixture):
    with pytest.raises(ValueError, match="lower global_batch_size"):
        Uniform(mixture, len(mixture) + 1, seed=0)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batch_in_equal_steps(mixture, world_size):
    plan = Uniform(mixture, 12, seed=0)
    ranks = [list(EpochSampler(plan, rank, world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {plan.steps}
    for step, parts in enumerate(zip(*ranks, strict=True)):
        assert {len(part) for part in parts} == {12 // world_size}
        assert sorted(np.concatenate(parts)) == sorted(plan.rows(0, step))


@pytest.mark.parametrize(("size", "world_size"), [(30, 1), (7, 1), (32, 2), (36, 4), (66, 3)])
def test_sequential_covers_everything_in_equal_steps_and_no_empty_batch(mixture, size, world_size):
    plan = Sequential(mixture, size, world_size)
    ranks = [list(EpochSampler(plan, rank, world_size)) for rank in range(world_size)]
    assert {len(batches) for batches in ranks} == {-(-len(mixture) // size)}
    for parts in zip(*ranks, strict=True):
        assert len({len(part) for part in parts}) == 1
        assert len(parts[0]) > 0
    rows = np.concatenate([part for batches in ranks for part in batches])
    assert set(rows) == set(range(len(mixture)))
    assert len(rows) - len(mixture) < world_size


def field_of(mixture, rows):
    return mixture.fields.iloc[mixture.fields_of(rows)]


def test_bags_hold_one_condition_spread_evenly_over_plates_and_wells(mixture):
    plan = Bags(mixture, 6, seed=0, bag_size=6)
    bags = epoch_rows(plan).reshape(-1, 6)
    for bag in bags:
        fields = field_of(mixture, bag)
        assert fields[schema.PERTURBATION].nunique() == 1
        available = mixture.fields[mixture.fields[schema.PERTURBATION] == fields[schema.PERTURBATION].iloc[0]]
        for column in (schema.PLATE, [schema.PLATE, schema.WELL]):
            counts = fields.groupby(column).size().reindex(available.groupby(column).size().index, fill_value=0)
            assert np.ptp(counts) <= 1
        assert len(np.unique(bag)) == 6


def test_a_batch_holds_distinct_perturbations_and_few_controls(mixture):
    plan = Bags(mixture, 8, seed=0, bag_size=2, controls_per_batch=1)
    shown = []
    for batch in epoch_rows(plan):
        fields = field_of(mixture, batch[:, 0])
        assert fields[schema.PERTURBATION].nunique() == 8
        assert (fields[schema.CONTROL_TYPE] == "negcon").sum() == 1
        assert not fields[schema.CONTROL_TYPE].eq("empty").any()
        shown += fields[schema.PERTURBATION].tolist()
    treated = [name for name in shown if name not in ("DMSO", "NT")]
    counts = np.unique(treated, return_counts=True)[1]
    rounds = plan.steps // (20 // 7)
    assert len(counts) == 20
    assert counts.max() <= rounds


def test_a_bag_of_a_rare_perturbation_repeats_its_crops(make_screen, rows_of_screen):
    rows = [row for row in rows_of_screen if row[schema.BATCH] == "b1" and row[schema.MODALITY] == "crispr"]
    mixture = Mixture([ShardDataset(make_screen(rows, crops=2))])
    bags = epoch_rows(Bags(mixture, 3, seed=0, bag_size=6)).reshape(-1, 6)
    for bag in bags:
        assert sorted(np.unique(bag, return_counts=True)[1]) == [3, 3]


def test_a_bag_of_a_well_holds_each_of_its_crops_before_any_twice(mixture):
    plan = Bags(mixture, 6, seed=0, bag_size=6, bag_scope="well")
    bags = epoch_rows(plan).reshape(-1, 6)
    wells = []
    for bag in bags:
        fields = field_of(mixture, bag)
        assert len(set(zip(fields[schema.PLATE], fields[schema.WELL], strict=True))) == 1
        assert sorted(np.unique(bag, return_counts=True)[1]) == [1, 1, 2, 2]  # 4 crops a well
        wells.append(fields[schema.PLATE].iloc[0])
    assert len(set(wells)) == 6  # every plate's turn comes
    shown = mixture.codes.perturbation[mixture.fields_of(bags[:, 0])].reshape(-1, 6)
    assert all(len(np.unique(batch)) == 6 for batch in shown)
    with pytest.raises(ValueError, match="bag_scope='plate': use one of"):
        Bags(mixture, 6, seed=0, bag_scope="plate")


def test_bags_need_enough_perturbations(mixture):
    with pytest.raises(
        ValueError, match=r"needs 21 distinct treated perturbations, the split has 20.*between 2 and 21"
    ):
        Bags(mixture, 22, seed=0)


def test_steps_per_epoch_is_kept_and_long_epochs_stay_balanced(mixture):
    plan = Bags(mixture, 5, seed=0, bag_size=2, controls_per_batch=0, steps_per_epoch=20)
    names = field_of(mixture, epoch_rows(plan).reshape(20 * 5, 2)[:, 0])[schema.PERTURBATION]
    assert plan.steps == 20
    assert set(names.value_counts()) == {5}


def test_bags_do_not_depend_on_the_order_of_the_fields(make_screen, rows_of_screen):
    order = np.random.default_rng(2).permutation(len(rows_of_screen))
    seen = []
    for name, rows in (("forward", rows_of_screen), ("shuffled", [rows_of_screen[i] for i in order])):
        mixture = Mixture([ShardDataset(make_screen(rows, name=name))])
        bags = epoch_rows(Bags(mixture, 6, seed=0, bag_size=4))
        fields = field_of(mixture, bags.ravel())
        seen.append((fields[schema.PLATE] + fields[schema.WELL]).tolist())
    assert seen[0] == seen[1]


@pytest.mark.parametrize("make", [lambda m: Uniform(m, 16, 7), lambda m: Bags(m, 6, 7, bag_size=3)])
def test_any_step_is_drawn_without_those_before_it(mixture, make):
    straight = epoch_rows(make(mixture), epoch=2)
    fresh = make(mixture)
    for step in (fresh.steps - 1, 0, fresh.steps // 2):
        np.testing.assert_array_equal(fresh.rows(2, step), straight[step])


def test_an_iterator_started_twice_or_before_set_epoch_loses_nothing(mixture):
    """Lightning starts the iterator before `set_epoch`, and a second time after a restart at an epoch's end."""
    plan = Uniform(mixture, 40, seed=0)
    sampler = EpochSampler(plan)
    for epoch in range(3):
        iter(sampler)
        sampler.set_epoch(epoch)
        batches = list(iter(sampler))
        np.testing.assert_array_equal(np.stack(batches), epoch_rows(plan, epoch))
        sampler.ready += len(batches)


def test_a_restored_sampler_continues_with_the_next_batch(mixture):
    plan = Uniform(mixture, 40, seed=0)
    sampler = EpochSampler(plan)
    sampler.load_state_dict({"epoch": 4, "batches_ready": 2})
    sampler.set_epoch(4)
    assert len(sampler) == plan.steps
    np.testing.assert_array_equal(np.stack(list(sampler)), epoch_rows(plan, 4)[2:])
    sampler.ready = plan.steps
    assert sampler.state_dict() == {"epoch": 5, "batches_ready": 0}


def test_inactive_perturbations_come_up_less_often(mixture, tmp_path):
    names = mixture.fields[schema.PERTURBATION].to_numpy()
    plain = Bags(mixture, 4, 0, bag_size=2)
    treated = sorted({str(n) for n, c in zip(names, mixture.codes.is_control, strict=True) if n and not c})
    inactive, unknown = treated[: len(treated) // 2], treated[-1]
    path = tmp_path / "replicate.csv"
    listed = [name for name in treated if name != unknown]
    table = pd.DataFrame({schema.PERTURBATION: listed, "p_value": [0.5 if n in inactive else 0.01 for n in listed]})
    table.to_csv(path, index=False)
    plan = ActiveBags(mixture, 4, 0, bag_size=2, p_values=path, share=1 / len(inactive), steps_per_epoch=60)
    shown = names[mixture.fields_of(np.concatenate([plan.rows(0, s)[:, 0] for s in range(plan.steps)]))]
    count = pd.Series(shown).value_counts().reindex(treated, fill_value=0)
    often = count[[name for name in treated if name not in inactive]]
    assert often.min() > 2 * count[inactive].max()
    assert count[inactive].sum() > 0
    rounds = [set(plan.order(0, r).tolist()) for r in range(200)]
    assert {len(r) for r in rounds} == {len(treated) - len(inactive) + 1}
    assert set.union(*rounds) == set(plain._treated.tolist())  # each inactive one has its turn
    table.assign(**{schema.PERTURBATION: "other"}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="is the table of this screen"):
        ActiveBags(mixture, 4, 0, p_values=path)
    table.assign(p_value=1.0).to_csv(path, index=False)
    with pytest.raises(ValueError, match="raise share"):
        ActiveBags(mixture, 4, 0, p_values=path, share=0.0)
