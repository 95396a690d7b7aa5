"""Principal axes of centred data, by an eigendecomposition of the smaller Gram matrix."""

from __future__ import annotations

import numpy as np


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (r,), largest first, and right singular vectors (D, r) of centred x (n, D), r its numerical rank.

    The Gram matrix has min(n, D) rows, so 20,000 x 1024 costs one product and one small eigenproblem, a twentieth of a
    singular value decomposition. It squares the condition number: directions more than about six orders of magnitude
    below the first are rounding errors and left out. The sign of an axis makes its largest loading positive.
    """
    n, d = x.shape
    values, vectors = np.linalg.eigh(x.T @ x if n >= d else x @ x.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > values[0] * max(n, d) * np.finfo(np.float64).eps).sum()) if values[0] > 0 else 0
    singular, vectors = np.sqrt(values[:rank]), vectors[:, :rank]
    if n < d:
        vectors = x.T @ vectors / singular
    largest = np.abs(vectors).argmax(0)
    return singular, vectors * np.sign(vectors[largest, np.arange(rank)])
