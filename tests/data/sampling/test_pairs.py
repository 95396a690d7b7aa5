from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import CellDataModule, ShardDataset
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.pairs import ELSEWHERE, SCOPES, Pairs

WELL = [schema.BATCH, schema.PLATE, schema.WELL]


@pytest.fixture(scope="module")
def mixture(screen) -> Mixture:
    return Mixture([ShardDataset(screen)])


def pairs_of(mixture: Mixture, plan: Pairs, epoch: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = np.concatenate([plan.rows(epoch, step) for step in range(plan.steps)])
    return tuple(mixture.fields.iloc[mixture.fields_of(rows[:, side])].reset_index(drop=True) for side in (0, 1))


def same(first: pd.DataFrame, second: pd.DataFrame, columns: list[str]) -> np.ndarray:
    return (first[columns] == second[columns]).all(axis=1).to_numpy()


@pytest.mark.parametrize("scope", ["plate", "batch", "source", "any"])
def test_pairs_are_of_one_perturbation_and_two_wells_within_the_scope(mixture, scope):
    first, second = pairs_of(mixture, Pairs(mixture, 8, 0, pair_scope=scope, controls_per_batch=2))
    assert same(first, second, list(schema.CONDITION)).all()
    assert same(first, second, list(SCOPES[scope])).all()
    wells = mixture.fields.groupby([*schema.CONDITION, *SCOPES[scope]])[schema.WELL].size()
    available = wells.loc[first.set_index([*schema.CONDITION, *SCOPES[scope]]).index].to_numpy()
    np.testing.assert_array_equal(same(first, second, WELL), available == 1)  # the same well only if there is no other


def test_a_wider_scope_reaches_other_batches(mixture):
    first, second = pairs_of(mixture, Pairs(mixture, 8, 0, pair_scope="any"))
    other = ~same(first, second, [schema.BATCH])
    assert 0.5 < other.mean() < 0.8  # two of the three other wells of a compound lie in the other batch


@pytest.mark.parametrize("scope", ELSEWHERE)
def test_the_second_well_is_on_another_plate_if_the_condition_has_one(mixture, scope):
    first, second = pairs_of(mixture, Pairs(mixture, 8, 0, pair_scope=scope, controls_per_batch=2))
    assert same(first, second, list(schema.CONDITION)).all()
    places = mixture.fields.groupby(list(schema.CONDITION))[list(ELSEWHERE[scope])]
    several = places.apply(lambda found: len(found.drop_duplicates()) > 1).loc[
        first.set_index(list(schema.CONDITION)).index
    ]
    np.testing.assert_array_equal(same(first, second, list(ELSEWHERE[scope])), ~several.to_numpy())
    assert not same(first, second, WELL).any()


def test_where_the_condition_is_in_no_other_batch_any_other_well_will_do(make_screen, rows_of_screen):
    rows = [row for row in rows_of_screen if row[schema.BATCH] == "b1" and row[schema.MODALITY] == "compound"]
    alone = Mixture([ShardDataset(make_screen(rows))])
    first, second = pairs_of(alone, Pairs(alone, 8, 0, pair_scope="other_batch"))
    assert same(first, second, list(schema.CONDITION)).all()
    assert not same(first, second, WELL).any()


def test_the_scope_same_is_the_same_crop_twice(mixture):
    rows = Pairs(mixture, 8, 0, pair_scope="same").rows(0, 0)
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    assert len(np.unique(rows[:, 0])) == 8


def test_a_share_of_the_pairs_is_one_crop_twice_evenly_over_the_ranks(mixture):
    plan = Pairs(mixture, 8, 0, same_share=0.25)
    for step in range(plan.steps):
        twice = np.equal(*plan.rows(0, step).T)
        assert twice.reshape(2, 4).sum(axis=1).tolist() == [1, 1]
    assert np.equal(*Pairs(mixture, 10, 0, same_share=0.8).rows(0, 0).T).sum() == 8  # 1 - .8 falls short of .2
    np.testing.assert_array_equal(
        Pairs(mixture, 8, 0, same_share=1.0).rows(0, 0), Pairs(mixture, 8, 0, pair_scope="same").rows(0, 0)
    )
    np.testing.assert_array_equal(plan.rows(0, 0)[:, 0], Pairs(mixture, 8, 0).rows(0, 0)[:, 0])


def test_every_treated_crop_is_first_once_an_epoch_and_controls_are_few(mixture):
    plan = Pairs(mixture, 9, 0, controls_per_batch=1)
    rows = np.concatenate([plan.rows(0, step) for step in range(plan.steps)])
    first = mixture.fields.iloc[mixture.fields_of(rows[:, 0])]
    control = first[schema.CONTROL_TYPE].eq("negcon").to_numpy()
    assert (control.reshape(plan.steps, 9).sum(axis=1) == 1).all()
    assert not first[schema.CONTROL_TYPE].eq("empty").any()
    treated = rows[~control, 0]
    assert len(np.unique(treated)) == len(treated)
    total = int((~mixture.fields[schema.CONTROL_TYPE].isin(["negcon", "empty"])).sum()) * 4
    assert plan.steps == total // 8


def moved(rows: list[dict]) -> list[dict]:
    """One compound on four plates: twice at A01, then in the same row, then in another row and column."""
    base = next(row for row in rows if row[schema.PERTURBATION] == "cpd-00")
    places = [("p1", "A01"), ("p2", "A01"), ("p3", "A05"), ("p4", "C04")]
    return [base | {schema.PLATE: plate, schema.WELL: well} for plate, well in places]


def test_another_row_and_column_is_preferred_where_the_layout_allows(make_screen, rows_of_screen):
    rows = moved(rows_of_screen)
    mixture = Mixture([ShardDataset(make_screen(rows))])
    first, second = pairs_of(mixture, Pairs(mixture, 4, 0, steps_per_epoch=40))
    chosen = {(a, b) for a, b in zip(first[schema.PLATE], second[schema.PLATE], strict=True)}
    assert chosen == {("p1", "p4"), ("p2", "p4"), ("p3", "p4"), ("p4", "p1"), ("p4", "p2"), ("p4", "p3")}
    without = Mixture([ShardDataset(make_screen(rows[:3], name="three"))])
    first, second = pairs_of(without, Pairs(without, 4, 0, steps_per_epoch=40))
    chosen = {(a, b) for a, b in zip(first[schema.PLATE], second[schema.PLATE], strict=True)}
    assert chosen == {("p1", "p3"), ("p2", "p3"), ("p3", "p1"), ("p3", "p2")}  # another column, for want of a row
    anywhere = Pairs(mixture, 4, 0, different_position=False, steps_per_epoch=60)
    first, second = pairs_of(mixture, anywhere)
    assert {("p1", "p2"), ("p1", "p3")} <= {*zip(first[schema.PLATE], second[schema.PLATE], strict=True)}


def test_a_lone_well_pairs_with_another_of_its_crops(make_screen, rows_of_screen):
    row = moved(rows_of_screen)[:1]
    mixture = Mixture([ShardDataset(make_screen(row, crops=3))])
    pairs = Pairs(mixture, 3, 0).rows(0, 0)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    lone = Mixture([ShardDataset(make_screen(row, name="lone", crops=1))])
    np.testing.assert_array_equal(Pairs(lone, 1, 0).rows(0, 0), [[0, 0]])


def test_pairs_do_not_depend_on_the_order_of_the_fields(make_screen, rows_of_screen):
    order = np.random.default_rng(2).permutation(len(rows_of_screen))
    partners = []
    for name, rows in (("forward", rows_of_screen), ("shuffled", [rows_of_screen[i] for i in order])):
        mixture = Mixture([ShardDataset(make_screen(rows, name=name, crops=1))])
        plan = Pairs(mixture, 8, 0)
        fields = mixture.fields[schema.PLATE] + mixture.fields[schema.WELL]
        row = int(np.flatnonzero(fields == "b1p1B03")[0])
        rng = np.random.default_rng(5)
        partners.append([fields[plan._wells.partner(row, True, rng)] for _ in range(10)])
    assert partners[0] == partners[1]


def test_any_step_is_drawn_without_those_before_it(mixture):
    straight = [Pairs(mixture, 7, 3).rows(2, step) for step in range(3)]
    plan = Pairs(mixture, 7, 3, steps_per_epoch=3)
    for step in (2, 0, 1):
        np.testing.assert_array_equal(plan.rows(2, step), straight[step])
    assert not np.array_equal(plan.rows(2, 0), plan.rows(3, 0))


def test_mistakes_are_named(mixture):
    with pytest.raises(
        ValueError, match="'well': use one of same, plate, batch, source, any, other_plate, other_batch"
    ):
        Pairs(mixture, 8, 0, pair_scope="well")
    with pytest.raises(ValueError, match=r"same_share=1.5 .* between 0 and 1"):
        Pairs(mixture, 8, 0, same_share=1.5)
    with pytest.raises(ValueError, match=r"between 2 and 289"):
        Pairs(mixture, 290, 0)
    with pytest.raises(ValueError, match=r"between 4 and 291"):
        Pairs(mixture, 3, 0, controls_per_batch=3)


def test_a_batch_of_pairs_is_a_batch_of_two_crops(screen):
    datamodule = CellDataModule([{"root": screen}], 6, "pairs", sampler_options={"pair_scope": "any"})
    batch = next(iter(datamodule.train_dataloader()))
    assert batch.images.shape == (6, 2, 5, 8, 8)
    assert batch.mask.all()
    assert batch.perturbation.shape == (6,)
    assert (batch.well[:, 0] != batch.well[:, 1]).all()
