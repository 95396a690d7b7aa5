"""Splits of a dataset on disk: the rows of its index that belong to each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from morphoclip.data.shards.dataset import ShardDataset


def write_split(folder: str | Path, name: str, rows: np.ndarray) -> Path:
    """Write `splits/<name>.npy`, the sorted int64 rows of the index that belong to the split, and return its path."""
    path = Path(folder) / "splits" / f"{name}.npy"
    path.parent.mkdir(exist_ok=True)
    working = path.with_name(f"{path.name}.partial-{os.getpid()}")  # runs of a sweep share the dataset
    with working.open("wb") as file:
        np.save(file, np.sort(np.asarray(rows, dtype=np.int64)))
    os.replace(working, path)
    return path


def write_splits(dataset: ShardDataset, assignment: pd.Series) -> dict[str, int]:
    """Write one split a value of `assignment` (one for every row of `dataset.fields`, as `holdout` gives).

    Returns:
        The number of crops in each.

    Raises:
        ValueError: `assignment` has not one value for every field of the dataset.
    """
    if len(assignment) != len(dataset.fields):
        raise ValueError(f"{len(assignment)} assignments for the {len(dataset.fields)} fields of {dataset.folder}")
    names = assignment.to_numpy()[dataset.index["field"]]
    sizes = {}
    for name in sorted(set(names)):
        rows = np.flatnonzero(names == name)
        write_split(dataset.folder, name, rows)
        sizes[name] = len(rows)
    return sizes


def read_split(folder: str | Path, name: str) -> np.ndarray:
    """The index rows (int64, sorted) of a split.

    Raises:
        FileNotFoundError: the dataset has no split of this name.
    """
    path = Path(folder) / "splits" / f"{name}.npy"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.npy"))
        raise FileNotFoundError(
            f"{folder} has no split {name!r}; it has {known or 'none'}. Use split=None for all crops or write_splits"
        )
    return np.load(path, mmap_mode="r")
