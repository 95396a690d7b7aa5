"""Subtract the median and divide by the median absolute deviation of the reference wells (pycytominer's `mad_robustize`)."""

from __future__ import annotations

import numpy as np

from morphoclip.profiling.scale import positive_scale, shift_and_scale

# The factor that makes the deviation estimate a normal distribution's standard deviation, rounded as pycytominer does.
CONSISTENCY = 1.4826


def fit(x: np.ndarray, eps: float = 0.0) -> dict[str, np.ndarray]:
    """Median and 1.4826 x median absolute deviation (D,); `eps` is added to the latter (pycytominer adds 1e-18).

    Raises:
        ConstantFeatureError: half of the reference wells or more share a feature's median and eps is 0.
    """
    columns = np.array(x.T, order="C")  # a feature's values side by side: selection runs ten times faster
    center = _medians(columns)
    columns -= center[:, None]
    deviation = CONSISTENCY * _medians(np.abs(columns, out=columns))
    return {"location": center, "scale": positive_scale(deviation, center, eps)}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: float) -> np.ndarray:
    return shift_and_scale(x, state)


def _medians(columns: np.ndarray) -> np.ndarray:
    """Medians (D,) of the rows of (D, n), which are reordered in place."""
    half = columns.shape[1] // 2
    if columns.shape[1] % 2:
        columns.partition(half, axis=1)
        return columns[:, half].copy()
    columns.partition(half, axis=1)
    return (columns[:, :half].max(1) + columns[:, half]) / 2
