"""Banks of smooth noise, computed once, from which textures are looked up."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from morphoclip.simulation.streams import stream

BANK = 512  # px, side of a periodic bank


@lru_cache(maxsize=16)
def noise_bank(sigma: float) -> np.ndarray:
    """(BANK, BANK) float32 periodic Gaussian noise of unit variance, blurred to `sigma` px; the same in every screen."""
    from scipy import fft

    white = stream("noise bank", sigma).standard_normal((BANK, BANK), dtype=np.float32)
    frequency = fft.fftfreq(BANK)[:, None] ** 2 + fft.rfftfreq(BANK)[None] ** 2
    smooth = fft.irfft2(fft.rfft2(white) * np.exp(-2 * (np.pi * sigma) ** 2 * frequency).astype(np.float32))
    return ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)


def look_up(sigma: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Noise of `sigma` px at coordinates of any size (taken modulo the bank, nearest pixel)."""
    rows = np.asarray(y).astype(np.int32) & (BANK - 1)
    return noise_bank(sigma)[rows, np.asarray(x).astype(np.int32) & (BANK - 1)]


def sample_noise(rng: np.random.Generator, sigma: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Noise of `sigma` px at coordinates, with a random offset in the bank."""
    offset = rng.integers(0, BANK, 2)
    return look_up(sigma, y + offset[0], x + offset[1])
