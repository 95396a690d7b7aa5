"""Split units: rows with the same unit are never separated by a split."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from morphoclip import chemistry, schema

LOCATIONS = {
    "plate": schema.PLATE_KEY,
    "batch": (schema.SOURCE, schema.BATCH),
    "source": (schema.SOURCE,),
}
COLUMNS = {"perturbation": schema.PERTURBATION, "gene": schema.GENE}
MOLECULES = ("structure", "scaffold")
_IDENTITY = (schema.NAME, schema.INCHIKEY, schema.SMILES)


def split_units(table: pd.DataFrame, by: str = "structure") -> pd.Series:
    """The unit of each row, a string on the index of `table`; blank if a row has none.

    Args:
        by: `structure`: a unit is a molecule, named by the smallest of its perturbation ids. Perturbations are one
            molecule if they share a name, the first block of the InChIKey, or the structure without stereochemistry,
            salt and tautomer. `scaffold`: the Murcko scaffold (the smallest among a molecule's forms); acyclic
            molecules and perturbations without SMILES are their own unit. `perturbation`, `gene`, `plate`, `batch`,
            `source`, or any `Metadata_` column.

    Raises:
        ValueError: unknown `by`, or the table lacks the columns.
    """
    if by in LOCATIONS:
        columns = [c for c in LOCATIONS[by] if c in table]
        if LOCATIONS[by][-1] not in columns:
            raise ValueError(f"a split by {by} needs the column {LOCATIONS[by][-1]}")
        return table[columns].fillna("").astype(str).agg("/".join, axis=1)
    if by in MOLECULES:
        return _molecule_units(table, by)
    column = COLUMNS.get(by, by)
    if not column.startswith(schema.PREFIX):
        known = [*MOLECULES, *COLUMNS, *LOCATIONS, *(c for c in table if c.startswith(schema.PREFIX))]
        raise ValueError(f"by={by!r}: use one of {', '.join(known)}")
    if column not in table:
        raise ValueError(f"a split by {by} needs the column {column}: annotate the table")
    return table[column].fillna("").astype(str)


def seen_perturbations(meta: pd.DataFrame, training: pd.DataFrame, by: str = "structure") -> set[str]:
    """Perturbations of `meta` whose unit also occurs in `training`."""
    shared = [c for c in meta if c in training and c.startswith(schema.PREFIX)]
    both = pd.concat([meta[shared], training[shared]], keys=["meta", "training"])
    units = split_units(both, by)
    known = set(units.loc["training"]) - {""}
    return set(both.loc["meta"].loc[units.loc["meta"].isin(known), schema.PERTURBATION].astype(str))


def _molecule_units(table: pd.DataFrame, by: str) -> pd.Series:
    needed = (schema.SMILES,) if by == "scaffold" else _IDENTITY
    if not any(column in table for column in needed):
        raise ValueError(f"a split by {by} needs {' or '.join(needed)}: annotate the table (--metadata)")
    columns = [schema.PERTURBATION, *(c for c in _IDENTITY if c in table)]
    perturbations = table[columns].fillna("").astype(str).drop_duplicates(schema.PERTURBATION)
    units = molecules(perturbations)
    if by == "scaffold":
        units = _scaffolds(perturbations[schema.SMILES], units)
    unit_of = dict(zip(perturbations[schema.PERTURBATION], units, strict=True))
    return table[schema.PERTURBATION].fillna("").astype(str).map(unit_of)


def molecules(perturbations: pd.DataFrame) -> pd.Series:
    """For each row, the smallest perturbation id of its molecule; one row per perturbation, missing values as ''."""
    unit = perturbations[schema.PERTURBATION]
    links = []
    if schema.INCHIKEY in perturbations:
        links.append(perturbations[schema.INCHIKEY].str[:14])
    if schema.NAME in perturbations:
        links.append(perturbations[schema.NAME].str.lower())
    unit = _linked(unit, links)
    if schema.SMILES in perturbations:
        unit = _linked(unit, [*links, _structures(perturbations[schema.SMILES], unit)])
    return unit


def _linked(unit: pd.Series, links: Collection[pd.Series]) -> pd.Series:
    """The smallest unit among all rows connected by equal values; blanks do not connect."""
    while True:
        before = unit
        for link in links:
            own = pd.Series([("row", i) for i in range(len(link))], index=link.index)
            unit = unit.groupby(link.where(link != "", own)).transform("min")
        if unit.equals(before):
            return unit


def _structures(smiles: pd.Series, unit: pd.Series) -> pd.Series:
    """The canonical structure of rows that share their element graph with a row of another unit; else blank."""
    graph = smiles.map(chemistry.element_graph)
    several = unit.groupby(graph).transform("nunique") > 1
    return smiles.where(several & (graph != ""), "").map(chemistry.canonical_structure)


def _scaffolds(smiles: pd.Series, unit: pd.Series) -> pd.Series:
    """The smallest scaffold of each unit's rows; the unit itself if none has a ring."""
    found = smiles.map(chemistry.scaffold)
    smallest = (
        found.where(found != "").groupby(unit).transform("min")
    )  # an acyclic form goes with the cyclic form of its molecule
    return smallest.where(smallest.notna(), unit)
