"""Candidate texts or structures to rank for a well: a table, or a file with one of them per line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

import pandas as pd

from morphoclip import schema

COLUMNS: dict[str, Literal["text", "smiles"]] = {"text": "text", "smiles": "smiles", schema.SMILES: "smiles"}


def read_candidates(path: str | Path) -> tuple[pd.DataFrame, Literal["text", "smiles"], list[str]]:
    """(table, kind, values) of the candidates in a file.

    Args:
        path: a table (.csv, .csv.gz, .parquet) with one of the columns `COLUMNS`; or a file with one candidate per line,
            commas included: a .txt of texts, or any file whose first line is one of `COLUMNS` alone.

    Raises:
        ValueError: not exactly one of the columns `COLUMNS`, or a row without a value there.
    """
    table = _one_per_line(Path(path))
    if table is None:
        table = pd.read_parquet(path) if str(path).endswith(".parquet") else pd.read_csv(path, dtype=str)
    found = [column for column in COLUMNS if column in table]
    if len(found) != 1:
        raise ValueError(f"{path} needs one of the columns {list(COLUMNS)}, not {found or list(table)[:8]}")
    values = table[found[0]].fillna("").astype(str).tolist()
    if not values:
        raise ValueError(f"{path} holds no candidate")
    if "" in values:
        raise ValueError(f"{path} has no {found[0]} in row {values.index('') + 1}: leave that row out")
    return table, COLUMNS[found[0]], values


def _one_per_line(path: Path) -> pd.DataFrame | None:
    """The lines of a file that holds one column; None for a table. A line that is quoted as in csv loses its quotes."""
    if path.name.endswith((".parquet", ".gz")):
        return None
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    head = lines[0].strip('"') if lines else ""
    if head not in COLUMNS and path.suffix != ".txt":
        return None
    column, rows = (head, lines[1:]) if head in COLUMNS else ("text", lines)
    return pd.DataFrame({column: [_unquoted(row) for row in rows]}, dtype=object)


def _unquoted(line: str) -> str:
    cells = next(csv.reader([line]), [""])
    return cells[0] if line.startswith('"') and len(cells) == 1 else line
