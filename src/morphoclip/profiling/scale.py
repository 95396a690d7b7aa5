"""Shift and scale features, refusing to divide by nothing."""

from __future__ import annotations

import numpy as np


class ConstantFeatureError(ValueError):
    """Features have no spread among the reference wells; `columns` are their positions."""

    def __init__(self, columns: np.ndarray):
        self.columns = columns
        super().__init__(f"features at columns {columns[:5].tolist()} do not vary among the reference wells")


def positive_scale(scale: np.ndarray, location: np.ndarray, eps: float) -> np.ndarray:
    """`scale` + `eps`, (D,), where every feature varies beyond rounding or eps is positive.

    Raises:
        ConstantFeatureError: a feature's scale is nought (to rounding) and eps is 0.
    """
    rounding = 10 * np.finfo(np.float64).eps * np.abs(location)
    constant = np.flatnonzero(scale <= rounding)
    if eps == 0 and constant.size:
        raise ConstantFeatureError(constant)
    return scale + eps


def shift_and_scale(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """(x - location) / scale in x's dtype, with one copy of x."""
    out = x - state["location"].astype(x.dtype)
    out /= state["scale"].astype(x.dtype)
    return out
