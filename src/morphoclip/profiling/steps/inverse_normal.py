"""Map each feature to a standard normal by its rank among the reference wells (sklearn's QuantileTransformer)."""

from __future__ import annotations

import numpy as np

# Ranks beyond the range of the reference wells are clipped as in sklearn, at 5.2 standard deviations.
RANK_BOUND = 1e-7


def fit(x: np.ndarray, n_quantiles: int = 1000) -> dict[str, np.ndarray]:
    """Quantiles (Q, D) at Q = min(n_quantiles, n) equally spaced ranks."""
    ranks = np.linspace(0, 1, min(n_quantiles, len(x)))
    return {"quantiles": np.maximum.accumulate(np.quantile(x, ranks, axis=0), axis=0)}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: int) -> np.ndarray:
    from scipy.special import ndtri

    quantiles = state["quantiles"]
    ranks = np.linspace(0, 1, len(quantiles))
    out = np.empty_like(x)
    for j, q in enumerate(quantiles.T):
        # A value between tied quantiles gets the mean of their ranks: interpolate from below and from above.
        upward, downward = np.interp(x[:, j], q, ranks), np.interp(-x[:, j], -q[::-1], -ranks[::-1])
        rank = (upward - downward) / 2
        rank[x[:, j] <= q[0]], rank[x[:, j] >= q[-1]] = 0, 1
        out[:, j] = ndtri(np.clip(rank, RANK_BOUND, 1 - RANK_BOUND))
    return out
