"""Subtract the mean of the reference wells."""

from __future__ import annotations

import numpy as np


def fit(x: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": x.mean(0)}


def apply(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    return x - state["mean"].astype(x.dtype)
