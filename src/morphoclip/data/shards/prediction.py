"""Predictive coding: each pixel as its difference from a prediction by its neighbours, which compresses better.

The prediction is left + above − above left, the plane through three neighbours. Differences wrap around in 16 bits, so
nothing is lost, and are folded to 0, 1, 2, 3, … for 0, −1, 1, −2, …, so that nearly all high bytes are zero.
"""

from __future__ import annotations

import numpy as np


def distances(image: np.ndarray) -> np.ndarray:
    """Folded differences of the pixels (C, H, W) uint16 from their predictions, in the same shape and dtype."""
    import imagecodecs

    signed = imagecodecs.delta_encode(imagecodecs.delta_encode(image, axis=2), axis=1).view(np.int16)
    return ((signed << 1) ^ (signed >> 15)).view(np.uint16)


def restore(folded: np.ndarray) -> np.ndarray:
    """The image that has these `distances`; `folded` is overwritten."""
    import imagecodecs

    sign = folded & 1
    np.negative(sign, out=sign)
    folded >>= 1
    folded ^= sign
    return imagecodecs.delta_decode(imagecodecs.delta_decode(folded, axis=1, out=folded), axis=2, out=folded)
