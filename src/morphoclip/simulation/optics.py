"""Imaging of stained cells: blur and halo, illumination, background, debris, photon noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

OFFSET = 110.0  # counts of a dark pixel
COUNTS_PER_PHOTON = 5.0
READ_NOISE = 9.0  # counts
PSF = np.array([0.85, 0.85, 0.85, 0.75, 0.85], np.float32)  # px, standard deviation of the sharp part
BACKGROUND = np.array([440.0, 280.0, 470.0, 570.0, 870.0], np.float32)  # counts above the offset
BLEED = ((1, 2, 0.10), (2, 1, 0.06), (2, 3, 0.05))  # from channel, to channel, share of signal


@dataclass(frozen=True)
class Conditions:
    """Effects of plate and well on an image, independent of the cells. Arrays hold one value per channel.

    Attributes:
        gain: (5,) factor on the signal.
        background: (5,) factor on the background.
        blur: (5,) factor on the PSF's width.
        halo: share of the light that is scattered widely.
        shade: (5,) loss of light at the field's corners.
        light: (2,) centre of the illumination, in fields from the middle.
        dust: (D, 4) y, x, radius in px and contrast of dust rings, seen in Mito and faintly elsewhere.
        debris: mean number of bright specks per field.
        drift: (axes,) shift of every cell's phenotype.
        density: factor on the number of cells.
    """

    gain: np.ndarray
    background: np.ndarray
    blur: np.ndarray
    halo: float
    shade: np.ndarray
    light: np.ndarray
    dust: np.ndarray
    debris: float
    drift: np.ndarray
    density: float


def photograph(
    rng: np.random.Generator, canvas: np.ndarray, margin: int, conditions: Conditions, dead: float
) -> np.ndarray:
    """(5, H, W) uint16 image of a stained canvas (5, side, side).

    Args:
        margin: px of canvas around the field.
        dead: mean number of dead, rounded, very bright cells in the field.

    Photon noise is drawn from a Gaussian of the same variance, which is a close approximation because every pixel has
    more than 20 photons.
    """
    side = canvas.shape[-1]
    _add_debris(rng, canvas, conditions.debris, dead)
    for source, target, share in BLEED:
        canvas[target] += share * canvas[source]
    signal = blur(canvas, (PSF * conditions.blur), conditions.halo)
    field = signal[:, margin : side - margin, margin : side - margin]
    height, width = field.shape[1:]
    light = _light(height, width, conditions)
    ground = BACKGROUND * conditions.background
    haze = 1 + 0.05 * _slow(rng, height, width)
    rings = _dust(height, width, conditions.dust)
    mean = field * conditions.gain[:, None, None] * light + ground[:, None, None] * light * haze
    mean[4] *= rings
    mean[:4] *= 1 + 0.25 * (rings - 1)
    variance = COUNTS_PER_PHOTON * mean + READ_NOISE**2
    noise = rng.standard_normal(mean.shape, dtype=np.float32)
    return np.clip(np.rint(mean + OFFSET + np.sqrt(variance) * noise), 0, 65535).astype(np.uint16)


def blur(image: np.ndarray, sigma: np.ndarray, halo: float) -> np.ndarray:
    """Image (C, H, W) through a PSF of a sharp Gaussian (`sigma` (C,) px) and a wide one holding `halo` of the light."""
    from scipy import fft

    squared = _frequency(image.shape[-2:])
    wide = np.float32(halo) * np.exp(-2 * (np.pi * 9.0) ** 2 * squared)
    blurred = np.empty_like(image)
    for channel in range(len(image)):
        transfer = (1 - np.float32(halo)) * np.exp(np.float32(-2 * (np.pi * sigma[channel]) ** 2) * squared) + wide
        blurred[channel] = fft.irfft2(fft.rfft2(image[channel]) * transfer, s=image.shape[-2:])
    return np.maximum(blurred, 0, out=blurred)


@lru_cache(maxsize=8)
def _frequency(shape: tuple[int, int]) -> np.ndarray:
    from scipy import fft

    return (fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None] ** 2).astype(np.float32)


@lru_cache(maxsize=8)
def _coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column coordinates from -1 to 1, (H, 1) and (1, W)."""
    return np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]


def _light(height: int, width: int, conditions: Conditions) -> np.ndarray:
    y, x = _coordinates(height, width)
    distance = (y - np.float32(conditions.light[0])) ** 2 + (x - np.float32(conditions.light[1])) ** 2
    return 1 - conditions.shade[:, None, None] * (0.5 * distance - 0.3)


def _slow(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W) smooth unevenness of the background, about ±1."""
    y, x = _coordinates(height, width)
    a = rng.standard_normal(4).astype(np.float32)
    phase = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    return 0.5 * (a[0] * y + a[1] * x + a[2] * np.sin(4 * y + phase[0]) + a[3] * np.sin(4 * x + phase[1]))


def _dust(height: int, width: int, dust: np.ndarray) -> np.ndarray:
    """(H, W) factor: rings of out-of-focus dust on the optics, at the same position in every field of a plate."""
    factor = np.ones((height, width), np.float32)
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    for y, x, radius, contrast in dust.astype(np.float32):
        distance = np.sqrt((rows - y * height) ** 2 + (columns - x * width) ** 2)
        factor += contrast * np.exp(-(((distance - radius) / 1.6) ** 2)) * np.cos(0.9 * (distance - radius))
    return factor


def _add_debris(rng: np.random.Generator, canvas: np.ndarray, specks: float, dead: float) -> None:
    """Bright specks (AGP, Mito, sometimes all) and dead cells: small spheres, bright in every channel."""
    side = canvas.shape[-1]
    for _ in range(rng.poisson(specks)):
        y, x = rng.integers(2, side - 4, 2)
        size = int(rng.integers(1, 3))
        colour = rng.random(5).astype(np.float32) ** 3 * np.array([0.1, 0.4, 0.4, 1.0, 0.8], np.float32)
        canvas[:, y : y + size, x : x + size] += (colour * rng.uniform(3e3, 5e4)).astype(np.float32)[:, None, None]
    for _ in range(rng.poisson(dead)):
        radius = rng.uniform(4.5, 7.5)
        y, x = rng.uniform(10, side - 10, 2)
        top, left = int(y) - 10, int(x) - 10
        grid = np.arange(20, dtype=np.float32)
        squared = ((grid[:, None] + top - y) ** 2 + (grid[None] + left - x) ** 2) / radius**2
        sphere = np.sqrt(np.maximum(1 - squared, 0)).astype(np.float32)
        colour = np.array([3.0e4, 2.2e4, 3.6e4, 1.8e4, 9e3]) * np.exp(0.4 * rng.standard_normal(5))
        canvas[:, top : top + 20, left : left + 20] += colour.astype(np.float32)[:, None, None] * sphere
