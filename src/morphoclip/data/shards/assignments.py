"""Splits of a dataset from an assignment of its fields."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.split_files import write_split


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
