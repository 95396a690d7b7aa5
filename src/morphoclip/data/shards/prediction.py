"""Each pixel as its distance from what its neighbours foretell: small numbers, which compress better than intensities.

A pixel is foretold as left + above − above left, the plane through three neighbours. The distances wrap around in 16
bits, so nothing is lost, and are folded to 0, 1, 2, 3, … for 0, −1, 1, −2, …: their high bytes are then nearly all zero.
"""

from __future__ import annotations

import numpy as np


def distances(image: np.ndarray) -> np.ndarray:
    """Folded distances of the pixels of (C, H, W) uint16 from their predictions, of the same shape and dtype."""
    import imagecodecs

    signed = imagecodecs.delta_encode(imagecodecs.delta_encode(image, axis=2), axis=1).view(np.int16)
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def restore(folded: np.ndarray) -> np.ndarray:
    """The image whose `distances` these are; `folded` is overwritten."""
    import imagecodecs

    sign = folded & 1
    np.negative(sign, out=sign)
    folded >>= 1
    folded ^= sign
    return imagecodecs.delta_decode(imagecodecs.delta_decode(folded, axis=1, out=folded), axis=2, out=folded)
