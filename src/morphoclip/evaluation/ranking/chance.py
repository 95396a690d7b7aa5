"""Expected average precision of random rankings, and harmonic numbers."""

from __future__ import annotations

from functools import cache

import numpy as np


def expected_average_precision(n_pos: np.ndarray, n_total: np.ndarray) -> np.ndarray:
    """Mean AP of random rankings of `n_pos` positives among `n_total`: [(k-1)(n-H_n)/(n-1) + H_n] / n."""
    k, n = np.asarray(n_pos, float), np.asarray(n_total, float)
    h = harmonic(np.asarray(n_total, np.int64))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = ((k - 1) * (n - h) / (n - 1) + h) / n
    return np.where(k == n, 1.0, value)


@cache
def _harmonic_numbers(n: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def harmonic(n: np.ndarray) -> np.ndarray:
    return _harmonic_numbers(1 << int(n.max(initial=1)).bit_length())[n]
