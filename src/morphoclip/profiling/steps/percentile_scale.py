"""Scale each feature so that two percentiles of the reference wells become 0 and 1 (Ljosa et al. 2013)."""

from __future__ import annotations

import numpy as np

from morphoclip.profiling.scale import positive_scale, shift_and_scale


def fit(x: np.ndarray, low: float = 1.0, high: float = 99.0, eps: float = 0.0) -> dict[str, np.ndarray]:
    """The percentile `low` (D,), and the distance from it to the percentile `high`, to which `eps` is added.

    Raises:
        ConstantFeatureError: both percentiles of a feature are equal and eps is 0.
        ValueError: `low` is not below `high`.
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentile_scale low={low}, high={high}: give 0 <= low < high <= 100")
    bottom, top = np.percentile(x, [low, high], axis=0)
    return {"location": bottom, "scale": positive_scale(top - bottom, bottom, eps)}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: float) -> np.ndarray:
    return shift_and_scale(x, state)
