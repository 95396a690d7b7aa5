"""Channel means and standard deviations from sums that add up crop by crop."""

from __future__ import annotations

import numpy as np


def channel_sums(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(C, 4) float64: Σx, Σx², Σs, Σs² of the raw pixels x of a (C, H, W) crop and of s, scaled from `low`, `high` (C,)."""
    raw = image.reshape(len(image), -1).astype(np.float64)
    low, high = np.asarray(low, np.float64)[:, None], np.asarray(high, np.float64)[:, None]
    scaled = np.clip((raw - low) / np.maximum(high - low, 1), 0, 1)
    return np.stack([raw.sum(1), (raw**2).sum(1), scaled.sum(1), (scaled**2).sum(1)], axis=1)


def summarise(sums: np.ndarray, pixels: int, scaled: str) -> dict:
    """`channel_sums` of `pixels` pixels a channel as means and standard deviations, raw and under the name `scaled`."""
    mean = sums / pixels
    statistics = {}
    for name, place in (("raw", 0), (scaled, 2)):
        deviation = np.sqrt(np.maximum(mean[:, place + 1] - mean[:, place] ** 2, 0))
        statistics[name] = {"mean": mean[:, place].tolist(), "std": deviation.tolist()}
    return statistics
