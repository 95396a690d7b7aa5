"""Splits of a dataset from an assignment of its fields."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.split_files import write_split


def write_splits(dataset: ShardDataset, assignment: pd.Series) -> dict[str, int]:
    """Write one split per value of `assignment`, which names the split of every row of `dataset.fields` (see `holdout`).

    Returns:
        The number of crops in each split.

    Raises:
        ValueError: the lengths of `assignment` and `dataset.fields` differ.
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
