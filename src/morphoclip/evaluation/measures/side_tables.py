"""Tables given beside the profiles: gene families, assays. All values are read as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema

_SEPARATORS = ("\t", ";", ",")


def read_text_table(path: str | Path, key: str) -> pd.DataFrame:
    """A csv or tsv (tabs, semicolons or commas; compressed or not) or parquet file, every value a string, blanks ''.

    Args:
        key: the key of configs/evaluate.yaml that named the file, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{key}={path}: there is no such file")
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            table = table.astype(object).where(table.notna(), "").astype(str)
        else:
            first = pd.read_csv(path, sep="\0", header=None, nrows=1, dtype=str).iloc[0, 0]
            separator = next((s for s in _SEPARATORS if s in first), ",")
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, OSError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{key}={path} cannot be read as a table: {error}") from error
    if table.empty:
        raise ValueError(f"{key}={path} has no rows")
    return table.rename(columns=lambda name: str(name).strip())


def column_named(table: pd.DataFrame, spellings: Sequence[str]) -> str | None:
    """The column with the first of `spellings` (lower case, blanks as '_', without Metadata_) that the table has."""
    bare = {c.removeprefix(schema.PREFIX).lower().replace(" ", "_"): c for c in reversed(list(table.columns))}
    return next((bare[name] for name in spellings if name in bare), None)
