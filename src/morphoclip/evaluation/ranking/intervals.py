"""Cluster bootstrap intervals of a mean over groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

LEVEL = 0.95


def cluster_interval(
    values: np.ndarray, clusters: Sequence[str], *, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values` (N,), resampling clusters; NaN with fewer than two clusters."""
    codes, names = pd.factorize(np.asarray(clusters, dtype=object), sort=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    weights = cluster_weights(len(names), draws, seed)
    means = (weights @ np.bincount(codes, values)) / (weights @ np.bincount(codes))
    return percentiles(means)


def cluster_weights(n: int, draws: int, seed: int) -> np.ndarray:
    """(draws, n): how often each of n clusters is drawn with replacement."""
    return np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
