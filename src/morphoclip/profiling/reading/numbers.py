"""Columns that should hold numbers: text among them is named, and lone text columns are metadata."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from morphoclip import schema

COMPARTMENTS = re.compile(r"(Cells|Cytoplasm|Nuclei|Image|Cell|Nucleus)_\w")  # of CellProfiler
NUMBERED = re.compile(r"(.*?)[_-]?(\d+)")  # embedding_0001, emb_0, f12, 767


def stems(names: list[str]) -> dict[str, str]:
    """Name -> stem of a numbered family ('embedding' of embedding_0001), for families of two or more."""
    found = {name: match[1] for name in names if (match := NUMBERED.fullmatch(name))}
    counts = pd.Series(list(found.values()), dtype=object).value_counts()
    return {name: stem for name, stem in found.items() if counts[stem] > 1}


def feature_like(name: str, families: dict[str, str]) -> bool:
    """Whether a name is that of a feature of CellProfiler or of an encoder."""
    return bool(COMPARTMENTS.match(name)) or name in families or bool(re.fullmatch(r"f\d+", name))


def judged(table: pd.DataFrame, names: list[str], where: str) -> tuple[pd.DataFrame, list[str]]:
    """(the table with numbers in those of `names` that hold numbers as text, those that hold text).

    Raises:
        ValueError: a column of numbers holds text; the message names the column, plate, well and value.
    """
    families, texts, converted = stems(names), [], {}
    for name in names:
        column = table[name]
        if pd.api.types.is_numeric_dtype(column.dtype):
            continue
        known = column.notna() & (column.astype(str).str.strip() != "")
        numbers = pd.to_numeric(column.where(known), errors="coerce")
        wrong = (known & numbers.isna()).to_numpy()
        if not wrong.any() and known.any():
            converted[name] = numbers.astype(np.float64)
        elif wrong.sum() * 2 <= known.sum() or (feature_like(name, families) and known.any()):
            raise ValueError(_wrong_cell(table, name, wrong, where))
        else:
            texts.append(name)
    return (table.assign(**converted) if converted else table), texts


def _wrong_cell(table: pd.DataFrame, name: str, wrong: np.ndarray, where: str) -> str:
    row = int(np.flatnonzero(wrong)[0])
    well = ", ".join(
        f"{what} {table[column].iloc[row]}"
        for what, column in (("plate", schema.PLATE), ("well", schema.WELL))
        if column in table
    )
    return (
        f"{where}: column {name!r} holds numbers, but {table[name].iloc[row]!r} at {well or f'row {row + 1}'} "
        f"({int(wrong.sum())} such cells): correct or empty them, or keep the column as metadata by "
        f"columns.{schema.PREFIX}{re.sub('[^A-Za-z0-9]+', '_', name)}={name!r}"
    )
