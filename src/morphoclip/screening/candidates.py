"""Tables of candidate texts or structures to rank for a well."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from morphoclip import schema

COLUMNS: dict[str, Literal["text", "smiles"]] = {"text": "text", "smiles": "smiles", schema.SMILES: "smiles"}


def read_candidates(path: str | Path) -> tuple[pd.DataFrame, Literal["text", "smiles"], list[str]]:
    """(table, kind, values) of a table of candidates (.csv, .csv.gz or .parquet).

    Raises:
        ValueError: not exactly one of the columns `COLUMNS`, or a row without a value there.
    """
    table = pd.read_parquet(path) if str(path).endswith(".parquet") else pd.read_csv(path, dtype=str)
    found = [column for column in COLUMNS if column in table]
    if len(found) != 1:
        raise ValueError(f"{path} needs one of the columns {list(COLUMNS)}, not {found or list(table)[:8]}")
    values = table[found[0]].fillna("").astype(str).tolist()
    if "" in values:
        raise ValueError(f"{path} has no {found[0]} in row {values.index('') + 1}: leave that row out")
    return table, COLUMNS[found[0]], values
