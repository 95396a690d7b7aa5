"""Square-root companding: no more codes than the camera's noise allows to tell apart.

The variance of a pixel grows with its intensity x (photon shot noise): σ²(x) = SHOT·x + READ². A code stands for a range
of intensities, and replacing each by the code's value changes it by at most TOLERANCE·σ. Where σ is small a code is a
single intensity, and nothing is lost.

SHOT and READ belong to CPJUMP1's microscope (20x, camera binning 2), estimated from neighbouring pixels of its images.
They are constants because the codes of written datasets depend on them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

SHOT = 0.09  # variance per unit of intensity
READ = 2.0  # σ without light
TOLERANCE = 0.2
LEVELS = 2**16


def noise(intensity: np.ndarray) -> np.ndarray:
    """Standard deviation of shot and read noise at an intensity, float64."""
    return np.sqrt(SHOT * np.asarray(intensity, np.float64) + READ**2)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """(code of each of the 65,536 intensities, intensity that each code stands for), uint16 each.

    Codes are made from low to high, each as wide as allowed: its value is TOLERANCE·σ above its lowest intensity, and it
    ends where an intensity would be more than TOLERANCE·σ above its value.
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
    """Codes (uint16) of the intensities (uint16) of an image of any shape."""
    return _tables()[0][image]


def expand(codes: np.ndarray, out: np.ndarray) -> None:
    """Write the intensities of `codes` to `out`, both uint16; they may be the same array.

    Raises:
        ValueError: a code is out of range.
    """
    values = _tables()[1]
    if codes.max() >= len(values):
        raise ValueError(f"code {codes.max()} is out of range, there are {len(values)} codes: the crop is damaged")
    np.take(values, codes, out=out, mode="clip")  # range checked above; the default mode would copy `out`
