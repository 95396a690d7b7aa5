"""Train, validation and test sets by a hash of the unit that they must not share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.splits.draws import uniform
from morphoclip.data.splits.units import MOLECULES, split_units

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def hash_split(fields: pd.DataFrame, by: str, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0) -> pd.Series:
    """The set of each row of `fields`, such that no unit is in two sets: u = SHA-256(seed, by, unit) in [0, 1).

    The sets divide [0, 1) by their fractions in the order given, and u selects the unit's set. So a unit's set depends
    on its name alone, not on other units, the order of rows, or the machine.

    Args:
        fields: annotated table, one row per field.
        by: as in `split_units`, but `perturbation` means `structure`, so that forms of one molecule stay together.
        fractions: name of a set -> its fraction of the units.
        seed: seed of the hash.

    Returns:
        Set names on the index of `fields`. Rows without a unit (for perturbation and scaffold: controls, empty wells
        and, for scaffold, reagents without SMILES) are in the first set.

    Raises:
        ValueError: fractions that do not add up to 1, an unknown column, or no row with a unit.
    """
    if not np.isclose(sum(fractions.values()), 1) or min(fractions.values()) < 0:
        raise ValueError(f"fractions {dict(fractions)} must not be negative and must add up to 1")
    unit = _units_of(fields, by)
    if not (unit != "").any():
        raise ValueError(f"no field has a {by} to split by: are the fields annotated (--metadata)?")
    names, ends = np.array(list(fractions)), np.cumsum(list(fractions.values()))
    known = {name: uniform(seed, by, name) for name in sorted(set(unit) - {""})}
    place = np.searchsorted(ends[:-1], [known.get(name, -1.0) for name in unit], side="right")
    return pd.Series(names[place], index=fields.index, name="split")


def _units_of(fields: pd.DataFrame, by: str) -> pd.Series:
    """The unit of each row; blank for controls and empty wells if perturbations are split.

    For a split by scaffold it is blank for perturbations without SMILES too.
    """
    if by not in ("perturbation", *MOLECULES):
        return split_units(fields, by)
    units = split_units(fields, "structure" if by == "perturbation" else by)
    chosen = schema.is_treated(fields)
    if by == "scaffold":
        molecule = split_units(fields, "structure")
        chosen &= (fields[schema.SMILES].fillna("") != "").groupby(molecule).transform("any").to_numpy()
    return units.where(chosen, "")
