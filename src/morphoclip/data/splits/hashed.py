"""Train, validation and test sets that follow from a hash of what must not be shared between them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.splits.draws import uniform
from morphoclip.data.splits.units import MOLECULES, split_units

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def hash_split(fields: pd.DataFrame, by: str, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0) -> pd.Series:
    """The name of a set for each row of `fields`, so that no unit is in two: u = SHA-256(seed, by, unit) in [0, 1).

    The sets take their fractions of [0, 1) in the order given, and a unit goes where its u falls. So a unit's set
    depends on nothing but its name: not on the other units, the order of rows, or the machine.

    Args:
        fields: annotated table, one row per field.
        by: as `split_units`; `perturbation` is here the same as `structure`, so that forms of one molecule stay together.
        fractions: name of a set -> its share of the units.
        seed: another seed, another choice.

    Returns:
        A name a row, on the index of `fields`. Rows without a unit (for perturbation and scaffold: controls, empty
        wells and, for scaffold, reagents without SMILES) are in the first set.

    Raises:
        ValueError: fractions that do not add up to 1, an unknown column, or no row with a unit.
    """
    if not np.isclose(sum(fractions.values()), 1) or min(fractions.values()) < 0:
        raise ValueError(f"fractions {dict(fractions)} must be at least 0 and add up to 1")
    unit = _units_of(fields, by)
    if not (unit != "").any():
        raise ValueError(f"no field has a {by} to split by: are the fields annotated (--metadata)?")
    names, ends = np.array(list(fractions)), np.cumsum(list(fractions.values()))
    known = {name: uniform(seed, by, name) for name in sorted(set(unit) - {""})}
    place = np.searchsorted(ends[:-1], [known.get(name, -1.0) for name in unit], side="right")
    return pd.Series(names[place], index=fields.index, name="split")


def _units_of(fields: pd.DataFrame, by: str) -> pd.Series:
    """The unit of each row, blank where it has none: controls and empty wells where perturbations are split.

    A split by scaffold leaves perturbations without SMILES out too.
    """
    if by not in ("perturbation", *MOLECULES):
        return split_units(fields, by)
    units = split_units(fields, "structure" if by == "perturbation" else by)
    chosen = schema.is_treated(fields)
    if by == "scaffold":
        molecule = split_units(fields, "structure")
        chosen &= (fields[schema.SMILES].fillna("") != "").groupby(molecule).transform("any").to_numpy()
    return units.where(chosen, "")
