"""Square-root companding: as many codes as the camera's noise leaves room for, no more.

Light comes as photons, so the variance of a pixel grows with its intensity x: σ²(x) = SHOT·x + READ². A code stands for
all intensities so close together that replacing them by one of them moves none by more than TOLERANCE·σ; where σ is
small a code is one intensity, and nothing is lost.

SHOT and READ are those of CPJUMP1's microscope (20x, camera binning 2), measured between neighbouring pixels of its
images; they are constants because the codes of a written dataset depend on them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SHOT = 0.09  # variance per unit of intensity
READ = 2.0  # σ without light
TOLERANCE = 0.2
LEVELS = 2**16


def noise(intensity: np.ndarray) -> np.ndarray:
    """σ of shot and read noise at an intensity, float64."""
    return np.sqrt(SHOT * np.asarray(intensity, np.float64) + READ**2)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(code of each of the 65,536 intensities, intensity that each code stands for), uint16 each.

    Codes are taken upwards, each as wide as it may be: its intensity lies TOLERANCE·σ above its lowest one, and it ends
    where an intensity would lie more than TOLERANCE·σ above that.
    """
    reach = np.floor(TOLERANCE * noise(np.arange(LEVELS))).astype(np.int64)
    codes = np.empty(LEVELS, np.uint16)
    values: list[int] = []
    low = 0
    while low < LEVELS:
        value = min(low + reach[low], LEVELS - 1)
        high = value
        while high + 1 < LEVELS and high + 1 - value <= reach[high + 1]:
            high += 1
        codes[low : high + 1] = len(values)
        values.append(value)
        low = high + 1
    return codes, np.array(values, np.uint16)


def compand(image: np.ndarray) -> np.ndarray:
    """Codes, uint16, of the intensities (uint16) of an image of any shape."""
    return _tables()[0][image]


def expand(codes: np.ndarray, out: np.ndarray) -> None:
    """Write the intensities that codes stand for to `out`, uint16 both; they may be one array.

    Raises:
        ValueError: a code that stands for nothing.
    """
    values = _tables()[1]
    if codes.max() >= len(values):
        raise ValueError(f"code {codes.max()} where there are {len(values)}: the crop is damaged")
    np.take(values, codes, out=out, mode="clip")  # checked above; the default mode would go by a copy of `out`
