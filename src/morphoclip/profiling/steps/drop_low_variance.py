"""Drop features with low variance among the reference wells."""

from __future__ import annotations

import numpy as np

ONE_GROUP = True


def fit(x: np.ndarray, threshold: float = 1e-6) -> dict[str, np.ndarray]:
    """Keep features whose population variance exceeds `threshold` (as pycytominer's variance_threshold)."""
    return {"kept": np.flatnonzero(x.var(0) > threshold)}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: float) -> np.ndarray:
    return x[:, state["kept"]]


def columns(names: list[str], state: dict[str, np.ndarray], **_: float) -> list[str]:
    return [names[i] for i in state["kept"]]
