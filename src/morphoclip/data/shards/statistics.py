"""Channel means and standard deviations from sums accumulated crop by crop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def scale(pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Pixels (C, n) scaled to [0, 1] between `low` and `high` (C, 1), which are taken to be at least 1 apart."""
    return np.clip((pixels - low) / np.maximum(high - low, 1), 0, 1)


def refuse_constant(channels: Sequence[str], std: np.ndarray, where: str) -> None:
    """Raise ValueError if a channel's standard deviation (C,) is 0 or not finite, so that it cannot be standardised."""
    constant = [channel for channel, deviation in zip(channels, std, strict=True) if not 0 < deviation < np.inf]
    if constant:
        raise ValueError(
            f"channel {', '.join(constant)} is constant in {where}, so it cannot be standardised: leave the channel out, or "
            "check its images and the intensities it is scaled by"
        )


def channel_sums(image: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(C, 4) float64: Σx, Σx², Σs, Σs² of a (C, H, W) crop's raw pixels x and of s, scaled by `low` and `high` (C,)."""
    raw = image.reshape(len(image), -1).astype(np.float64)
    low, high = np.asarray(low, np.float64)[:, None], np.asarray(high, np.float64)[:, None]
    scaled = scale(raw, low, high)
    return np.stack([raw.sum(1), (raw**2).sum(1), scaled.sum(1), (scaled**2).sum(1)], axis=1)


def summarise(sums: np.ndarray, pixels: int, scaled: str) -> dict:
    """Means and standard deviations from `channel_sums` of `pixels` pixels per channel, raw and under the key `scaled`."""
    mean = sums / pixels
    statistics = {}
    for name, place in (("raw", 0), (scaled, 2)):
        deviation = np.sqrt(np.maximum(mean[:, place + 1] - mean[:, place] ** 2, 0))
        statistics[name] = {"mean": mean[:, place].tolist(), "std": deviation.tolist()}
    return statistics
