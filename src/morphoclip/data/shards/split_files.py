"""Split files of a dataset: the index rows of each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from morphoclip.files import write_atomically


def write_split(folder: str | Path, name: str, rows: np.ndarray) -> Path:
    """Write the split's index rows (sorted, int64) to `splits/<name>.npy` and return its path."""
    path = Path(folder) / "splits" / f"{name}.npy"
    with write_atomically(path) as partial:  # runs of a sweep share the dataset
        np.save(partial, np.sort(np.asarray(rows, dtype=np.int64)))
    return path


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
