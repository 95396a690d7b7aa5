"""Train, validation and test sets that follow from a hash of what must not be shared between them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.splits.holdout import linked_units, uniform

PLACES = {
    "plate": [schema.SOURCE, schema.BATCH, schema.PLATE],
    "batch": [schema.SOURCE, schema.BATCH],
    "source": [schema.SOURCE],
}
FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def hash_split(fields: pd.DataFrame, by: str, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0) -> pd.Series:
    """Name a set for every field so that no unit is in two: u = SHA-256(seed, by, unit) as a number in [0, 1).

    The sets take their fractions of [0, 1) in the order given, and a unit goes where its u falls. So a unit's set
    depends on nothing but its name: not on the other units, the order of rows, or the machine.

    Args:
        fields: a row a field.
        by: `perturbation` (compounds that share a name or the InChIKey's first block are one unit), `scaffold` (Murcko;
            an acyclic molecule is its own unit), `plate`, `batch`, `source`, or any `Metadata_` column.
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
    """The unit of each row as text, blank where it has none."""
    if by in PLACES:
        return fields[PLACES[by]].astype(str).agg("/".join, axis=1)
    if by in ("perturbation", "scaffold"):
        columns = [schema.PERTURBATION, schema.INCHIKEY, schema.NAME, schema.SMILES]
        treated = ~fields[schema.CONTROL_TYPE].isin([schema.NEGCON, schema.EMPTY]) & (fields[schema.PERTURBATION] != "")
        table = fields.loc[treated, columns].drop_duplicates(schema.PERTURBATION).astype(str)
        unit = linked_units(table)
        if by == "scaffold":
            unit = _scaffolds(table[schema.SMILES], unit)
        of = dict(zip(table[schema.PERTURBATION], unit, strict=True))
        return fields[schema.PERTURBATION].where(treated, "").map(of).fillna("")
    if by not in fields:
        known = [column for column in fields if column.startswith(schema.PREFIX)]
        raise ValueError(f"by={by!r} is none of perturbation, scaffold, {', '.join(PLACES)} and {', '.join(known)}")
    return fields[by].astype(str)


def _scaffolds(smiles: pd.Series, unit: pd.Series) -> pd.Series:
    """One scaffold a unit: the smallest of its members'; the unit itself where it has no ring; blank without SMILES."""
    from rdkit import Chem, RDLogger
    from rdkit.Chem.Scaffolds import MurckoScaffold

    RDLogger.DisableLog("rdApp.error")

    def scaffold(text: str) -> str:
        molecule = Chem.MolFromSmiles(text) if text else None
        return "" if molecule is None else MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)

    found = smiles.map(scaffold)
    smallest = found.where(found != "").groupby(unit).transform("min")  # a salt's acyclic twin goes with its ring
    has_smiles = (smiles != "").groupby(unit).transform("any")
    return smallest.where(smallest.notna(), "acyclic " + unit).where(has_smiles, "")
