"""The perturbations that a training is watched by: drawn from those not held out, whole molecules, whatever the order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data.splits.validation import validation


def fields(compounds: int = 40) -> pd.DataFrame:
    """Two plates with every compound and two controls; the compounds 0 and 1 are one molecule."""
    names = [f"c{i:02d}" for i in range(compounds)]
    plate = pd.DataFrame(
        {
            schema.PERTURBATION: [*names, "DMSO", "DMSO"],
            schema.CONTROL_TYPE: [""] * compounds + ["negcon"] * 2,
            schema.NAME: ["same", "same", *names[2:], "DMSO", "DMSO"],
        }
    )
    return pd.concat([plate.assign(Metadata_Plate=p) for p in ("P1", "P2")], ignore_index=True)


def test_a_share_of_the_molecules_is_chosen_on_all_plates_without_controls():
    table = fields()
    chosen = validation(table, np.ones(len(table), bool), fraction=0.3)
    names = set(table.loc[chosen, schema.PERTURBATION])
    assert 5 <= len(names) <= 19
    assert "DMSO" not in names
    assert ("c00" in names) == ("c01" in names)
    assert (table[schema.PERTURBATION].isin(names) == chosen).all()
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = table.iloc[order].reset_index(drop=True)
    np.testing.assert_array_equal(validation(shuffled, np.ones(len(table), bool), fraction=0.3), chosen[order])


def test_what_is_held_out_already_is_not_chosen():
    table = fields()
    among = (table["Metadata_Plate"] == "P1").to_numpy() & ~table[schema.PERTURBATION].isin(["c05", "c06"]).to_numpy()
    chosen = validation(table, among, fraction=0.5)
    assert not (chosen & ~among).any()
    assert chosen.any()


def test_a_screen_that_grows_keeps_its_choice():
    small, large = fields(30), fields(40)
    first = set(small.loc[validation(small, np.ones(len(small), bool), fraction=0.3), schema.PERTURBATION])
    second = set(large.loc[validation(large, np.ones(len(large), bool), fraction=0.3), schema.PERTURBATION])
    assert first <= second


@pytest.mark.parametrize(
    ("fraction", "said"), [(0.0, "between 0 and 1"), (1e-9, "chooses 0 of 39"), (1 - 1e-9, "chooses 39 of 39")]
)
def test_a_fraction_that_leaves_nothing_on_a_side_is_refused(fraction, said):
    table = fields()
    with pytest.raises(ValueError, match=said):
        validation(table, np.ones(len(table), bool), fraction=fraction)
