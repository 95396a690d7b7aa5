"""Several profile tables ▶ one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from glob import glob
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.tasks.protocol import Protocol, plate_sets


def profile_paths(patterns: str | Sequence[str]) -> list[Path]:
    """Files that match a path, a glob, or a list of them, sorted, without repeats.

    Raises:
        FileNotFoundError: a pattern matches nothing.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str | Path) else patterns:
        matches = [Path(p) for p in glob(str(pattern), recursive=True)]
        if not matches:
            raise FileNotFoundError(
                f"profiles={str(pattern)!r} matches no file: check the folder, and quote globs on the command line"
            )
        found.update(matches)
    return sorted(found)


def join_profiles(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of all. A feature that a file lacks is NaN in its rows, and is left out of sets with such rows.

    Args:
        tables: file name -> table in canonical column names.

    Raises:
        ValueError: a file has no rows or no features.
    """
    for name, table in tables.items():
        if table.empty:
            raise ValueError(f"{name} has no rows")
        if not schema.split_columns(table)[1]:
            raise ValueError(f"{name} has no feature columns: every column is named Metadata_*")
    joined = pd.concat(list(tables.values()), ignore_index=True)
    metadata, features = schema.split_columns(joined)
    return pd.concat([joined[metadata].fillna(""), joined[features]], axis=1)


def normalized_folds(
    table: pd.DataFrame, protocol: Protocol, normalize: Callable[[pd.DataFrame], list[pd.DataFrame]]
) -> tuple[list[pd.DataFrame], list[str]]:
    """Normalise each set of plates separately, on the features its plates share, and join the sets fold by fold.

    Args:
        normalize: table of a set -> its folds (one without cross-fitting).

    Returns:
        Tables for `score`, and notes on what was left out.
    """
    sets, notes = plate_sets(table, protocol)
    folds = [normalize(plate_set.table) for plate_set in sets]
    return [pd.concat(parts, ignore_index=True) for parts in zip(*folds, strict=True)], notes
