"""Scale every well's profile to unit length."""

from __future__ import annotations

import numpy as np


def apply(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """Profiles of unit length; raises ValueError if a profile is all zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    empty = np.flatnonzero(length == 0)
    if empty.size:
        raise ValueError(f"l2: {empty.size} profiles are all zero (the first in row {empty[0]}); drop these wells")
    return x / length
