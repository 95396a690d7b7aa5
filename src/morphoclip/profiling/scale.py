"""Shifting and scaling of features, with an error for constant ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

Found = TypeVar("Found")
_PART = 2**19  # values per part, which fit a core's cache


class ConstantFeatureError(ValueError):
    """Features do not vary among the reference wells; `columns` are their indices."""

    def __init__(self, columns: np.ndarray):
        self.columns = columns
        super().__init__(f"features at columns {columns[:5].tolist()} do not vary among the reference wells")


def positive_scale(scale: np.ndarray, location: np.ndarray, eps: float) -> np.ndarray:
    """`scale` + `eps`, (D,), after checking that every scale is above rounding errors or eps is positive.

    Raises:
        ConstantFeatureError: a feature's scale is 0 (up to rounding) and eps is 0.
    """
    rounding = 10 * np.finfo(np.float64).eps * np.abs(location)
    constant = np.flatnonzero(scale <= rounding)
    if eps == 0 and constant.size:
        raise ConstantFeatureError(constant)
    return scale + eps


def in_parts(function: Callable[[slice], Found], rows: np.ndarray) -> list[Found]:
    """`function(part)` for slices of `rows` that fit a core's cache, on two threads (numpy releases the GIL)."""
    count = max(1, min(len(rows), -(-rows.size // _PART)))
    edges = np.linspace(0, len(rows), count + 1).astype(int)
    parts = [slice(*ends) for ends in pairwise(edges)]
    if len(parts) < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(function, parts))


def stored_by_column(x: np.ndarray) -> bool:
    """Whether x is stored column by column, as in pandas tables, rather than row by row."""
    return abs(x.strides[0]) < abs(x.strides[1])


def shift_and_scale(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """(x - location) / scale in x's dtype and memory layout, with one copy of x."""
    out = np.empty_like(x)
    arrays = [np.broadcast_to(state[key].astype(x.dtype), x.shape) for key in ("location", "scale")]
    given, location, scale, result = (a.T if stored_by_column(x) else a for a in (x, *arrays, out))

    def part(rows: slice) -> None:
        np.subtract(given[rows], location[rows], out=result[rows])
        result[rows] /= scale[rows]

    in_parts(part, result)
    return out
