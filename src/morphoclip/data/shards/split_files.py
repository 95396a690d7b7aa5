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


def is_file_of_rows(split: str) -> bool:
    """Whether a split is the path of a .npy file of rows, e.g. in a run's folder, rather than a name."""
    return split.endswith(".npy")


def read_split(folder: str | Path, name: str) -> np.ndarray:
    """The index rows (int64, sorted) of a split.

    Args:
        folder: the dataset.
        name: of one of its splits, or the path of a .npy file of rows.

    Raises:
        FileNotFoundError: the dataset has no split of this name, or there is no such file.
    """
    if is_file_of_rows(name):
        if not Path(name).is_file():
            raise FileNotFoundError(f"there is no file of rows {name}: give another split, or None for all crops")
        return np.load(name, mmap_mode="r")
    path = Path(folder) / "splits" / f"{name}.npy"
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.npy"))
        raise FileNotFoundError(
            f"{folder} has no split {name!r}; it has {known or 'none'}. Use split=None for all crops or write_splits"
        )
    return np.load(path, mmap_mode="r")
