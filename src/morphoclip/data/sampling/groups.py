"""Crops grouped by keys of their fields; only the fields are sorted, which are a hundred times fewer than crops."""

from __future__ import annotations

import numpy as np


class Groups:
    """The crops of some fields, grouped by the fields' keys.

    Args:
        fields: (N,) int, the field of each crop.
        keys: (k, F) int64 from 0; a group is the fields with equal keys. Groups are sorted by the first key, then the
            second, ….
        keep: (F,) bool, the fields to include.

    Attributes:
        rows: the crops, group after group, in their original order within a group; group g is
            rows[starts[g] : starts[g + 1]].
        starts: (G + 1,) int64.
        keys: (k, G) int64.
    """

    def __init__(self, fields: np.ndarray, keys: np.ndarray, keep: np.ndarray) -> None:
        kept = np.flatnonzero(keep)
        order = kept[np.lexsort(keys[::-1, kept])]
        first = np.any(np.diff(keys[:, order], prepend=-1), axis=0)
        self.keys = keys[:, order[first]]
        group = np.full(keys.shape[1], -1, np.int32)
        group[order] = np.cumsum(first) - 1
        of_crop = group[fields]
        rows = np.flatnonzero(of_crop >= 0)
        self.rows = rows[np.argsort(of_crop[rows], kind="stable")]
        counts = np.bincount(of_crop[rows], minlength=self.keys.shape[1])
        self.starts = np.append(0, np.cumsum(counts))
