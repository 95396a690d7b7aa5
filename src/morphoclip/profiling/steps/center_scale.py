"""Subtract the mean and divide by the standard deviation of the reference wells (pycytominer's `standardize`)."""

from __future__ import annotations

import numpy as np

from morphoclip.profiling.scale import positive_scale, shift_and_scale


def fit(x: np.ndarray, eps: float = 0.0) -> dict[str, np.ndarray]:
    """Mean and population standard deviation (D,); `eps` is added to the latter.

    Raises:
        ConstantFeatureError: a feature is constant among the reference wells and eps is 0.
    """
    mean = x.mean(0)
    return {"location": mean, "scale": positive_scale(x.std(0), mean, eps)}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: float) -> np.ndarray:
    return shift_and_scale(x, state)
