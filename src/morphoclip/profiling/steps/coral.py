"""Align each group's mean and covariance with the pooled ones (CORAL: Sun, Feng & Saenko 2016, arXiv:1511.05547)."""

from __future__ import annotations

import numpy as np


def pooled(x: np.ndarray, eps: float = 0.5) -> dict[str, np.ndarray]:
    return {"mean": x.mean(0), "recolor": _power(x, eps, 0.5)}


def fit(x: np.ndarray, pooled: dict[str, np.ndarray], eps: float = 0.5) -> dict[str, np.ndarray]:
    """The affine map of this group's reference wells (n, D) to the pooled mean and covariance.

    `eps` times the identity is added to both covariances; scale the features to about unit variance before.

    Raises:
        ValueError: fewer than two reference wells.
    """
    return {"mean": x.mean(0), "target": pooled["mean"], "matrix": _power(x, eps, -0.5) @ pooled["recolor"]}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: float) -> np.ndarray:
    matrix = state["matrix"].astype(x.dtype)
    return (x - state["mean"].astype(x.dtype)) @ matrix + state["target"].astype(x.dtype)


def _power(x: np.ndarray, eps: float, exponent: float) -> np.ndarray:
    """(covariance of x + eps I) ** exponent, (D, D)."""
    if len(x) < 2:
        raise ValueError("coral: a covariance needs at least two reference wells in every group")
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False).reshape(x.shape[1], -1) + eps * np.eye(x.shape[1]))
    if values[0] <= 0:
        raise ValueError("coral: the covariance is singular; set eps above 0")
    return vectors * values**exponent @ vectors.T
