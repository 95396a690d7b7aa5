"""Split units: rows with the same unit are never separated by a split."""

from __future__ import annotations

import pandas as pd

from morphoclip import chemistry, schema

LOCATIONS = {
    "plate": schema.PLATE_KEY,
    "batch": (schema.SOURCE, schema.BATCH),
    "source": (schema.SOURCE,),
}
COLUMNS = {"perturbation": schema.PERTURBATION, "gene": schema.GENE}
MOLECULES = ("structure", "scaffold")


def split_units(table: pd.DataFrame, by: str = "structure") -> pd.Series:
    """The unit of each row, a string on the index of `table`; blank if a row has none.

    Args:
        by: `structure`: a unit is a molecule (`chemistry.molecules`). `scaffold`: the Murcko scaffold (the smallest
            among a molecule's forms); acyclic molecules and perturbations without SMILES are their own unit.
            `perturbation`, `gene`, `plate`, `batch`, `source`, or any `Metadata_` column.

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
    """Perturbations of `meta` whose unit also occurs in `training`.

    Raises:
        ValueError: a table lacks the columns of `by`; for a molecule, no column by which two perturbations could be one molecule.
    """
    if by in MOLECULES:
        columns = [schema.PERTURBATION, *chemistry.IDENTITY]
        known = [[c for c in columns[1:] if c in table] for table in (meta, training)]
        structures = {schema.SMILES, schema.INCHIKEY}  # one is computed from the other
        if not set(known[0]) & set(known[1]) and not all(structures & set(names) for names in known):
            raise ValueError(
                f"seen_by={by}: the profiles have {known[0] or 'no name or structure'} and the training table "
                f"{known[1] or 'none'}, so they cannot be compared: give both a name, an InChIKey or SMILES (metadata=)"
            )
        parts = [table[[c for c in columns if c in table]] for table in (meta, training)]
    else:
        shared = [c for c in meta if c in training and c.startswith(schema.PREFIX)]
        parts = [meta[shared], training[shared]]
    both = pd.concat(parts, keys=["meta", "training"])
    units = split_units(both, by)
    trained = set(units.loc["training"]) - {""}
    return set(both.loc["meta"].loc[units.loc["meta"].isin(trained), schema.PERTURBATION].astype(str))


def _molecule_units(table: pd.DataFrame, by: str) -> pd.Series:
    needed = (schema.SMILES,) if by == "scaffold" else chemistry.IDENTITY
    if not any(column in table for column in needed):
        raise ValueError(f"a split by {by} needs {' or '.join(needed)}: annotate the table (--metadata)")
    units = chemistry.molecules(table)
    if by == "structure":
        return units
    found = table[schema.SMILES].fillna("").astype(str).map(chemistry.scaffold)
    # an acyclic form goes with the cyclic form of its molecule
    smallest = found[found != ""].groupby(units).min()
    return units.map(smallest).where(units.isin(smallest.index) & (units != ""), units)
