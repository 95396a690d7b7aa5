"""Subtract the median and divide by the median absolute deviation of the reference wells (pycytominer's `mad_robustize`)."""

from __future__ import annotations

import numpy as np

from morphoclip.profiling.scale import in_parts, positive_scale, shift_and_scale

OWN_DTYPE = True

# The factor that makes the deviation estimate a normal distribution's standard deviation, rounded as pycytominer does.
CONSISTENCY = 1.4826


def fit(x: np.ndarray, eps: float = 0.0) -> dict[str, np.ndarray]:
    """Median and 1.4826 x median absolute deviation (D,); `eps` is added to the latter (pycytominer adds 1e-18).

    Raises:
        ConstantFeatureError: at least half of the reference wells have a feature's median and eps is 0.
    """
    found = in_parts(lambda part: _center_and_deviation(x.T[part]), x.T)
    center, deviation = (np.concatenate(values) for values in zip(*found, strict=True))
    return {"location": center, "scale": positive_scale(CONSISTENCY * deviation, center, eps)}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: float) -> np.ndarray:
    return shift_and_scale(x, state)


def _center_and_deviation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and median absolute deviation, float64 (d,), of the rows of (d, n)."""
    features = np.array(features, order="C")  # contiguous values per feature make selection ten times faster
    center = _medians(features)
    features -= center[:, None].astype(features.dtype)
    return center, _medians(np.abs(features, out=features))


def _medians(features: np.ndarray) -> np.ndarray:
    """Medians, float64 (d,), of the rows of (d, n); rows are reordered in place."""
    half = features.shape[1] // 2
    features.partition(half, axis=1)
    upper = features[:, half].astype(np.float64)
    return upper if features.shape[1] % 2 else (features[:, :half].max(axis=1) + upper) / 2
