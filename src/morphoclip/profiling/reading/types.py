"""A frame in types that numpy knows: numbers, bool and text; no extension types, lists, decimals or index."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd


def plain_frame(frame: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    """The frame with text names, named index levels as columns, and each column as numbers, bool or text.

    Lists of equally many numbers become a column per number; lists of text are joined by `|`.

    Raises:
        ValueError: a column holds mappings, or lists of different lengths.
    """
    if isinstance(frame.columns, pd.MultiIndex):
        frame = frame.set_axis(["_".join(str(part) for part in name if str(part)) for name in frame.columns], axis=1)
    levels = [name for name in frame.index.names if name is not None and name not in frame.columns]
    if levels:
        frame = frame.reset_index(level=levels)
        notes.append(f"{path.name}: the index {levels} is read as columns")
    parts = [_plain(str(name), frame.iloc[:, number], path, notes) for number, name in enumerate(frame.columns)]
    return pd.concat([part.reset_index(drop=True) for part in parts], axis=1) if parts else pd.DataFrame()


def _plain(name: str, column: pd.Series, path: Path, notes: list[str]) -> pd.Series | pd.DataFrame:
    column = column.rename(name)
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return _plain(name, column.astype(kind.categories.dtype if not column.isna().any() else object), path, notes)
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        return column.map(_date, na_action="ignore").astype(object)
    if pd.api.types.is_extension_array_dtype(kind) and (
        pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)
    ):
        whole = column.dropna()
        if len(whole) < len(column) and pd.api.types.is_bool_dtype(kind):
            return column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
        if len(whole) < len(column):
            return pd.Series(column.to_numpy(np.float64, na_value=np.nan), name=name)
        return pd.Series(whole.to_numpy(), name=name).infer_objects()
    if pd.api.types.is_numeric_dtype(kind):
        return column
    return _of_objects(name, column.astype(object), path, notes)


def _of_objects(name: str, column: pd.Series, path: Path, notes: list[str]) -> pd.Series | pd.DataFrame:
    known = column.dropna()
    if known.empty:
        return column
    first = known.iloc[0]
    if isinstance(first, dict):
        raise ValueError(
            f"{path}: column {name!r} holds mappings, e.g. {first}: write its parts as columns of their own"
        )
    if isinstance(first, list | tuple | np.ndarray):
        return _of_lists(name, column, path, notes)
    if isinstance(first, Decimal):
        return column.astype(np.float64)
    if isinstance(first, bytes):
        return column.map(lambda value: value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    if isinstance(first, date | datetime):
        return column.map(_date, na_action="ignore")
    return column.infer_objects()


def _of_lists(name: str, column: pd.Series, path: Path, notes: list[str]) -> pd.Series | pd.DataFrame:
    known = column.dropna()
    if all(isinstance(value, str) for row in known for value in row):
        return column.map("|".join, na_action="ignore")
    sizes = known.map(len)
    if sizes.nunique() > 1 or len(known) < len(column):
        raise ValueError(
            f"{path}: column {name!r} holds lists of {sizes.min()} to {sizes.max()} numbers, {len(column) - len(known)} "
            "rows have none: each row needs equally many"
        )
    size = int(sizes.iloc[0])
    notes.append(
        f"{path.name}: the lists of column {name!r} are read as {size} columns, {name}_0000 to {name}_{size - 1:04d}"
    )
    return pd.DataFrame(np.array(known.tolist()), columns=[f"{name}_{i:04d}" for i in range(size)])


def _date(value: object) -> str:
    """'2026-11-28', with the time unless that is midnight."""
    return str(value).removesuffix(" 00:00:00")
