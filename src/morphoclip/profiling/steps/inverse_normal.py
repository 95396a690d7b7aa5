"""Map each feature to a standard normal by its rank among the reference wells (sklearn's QuantileTransformer)."""

from __future__ import annotations

import numpy as np

# Ranks beyond the range of the reference wells are clipped as in sklearn, at 5.2 standard deviations.
RANK_BOUND = 1e-7
# Values of a feature closer than this fraction of its largest are near ties, which are interpolated.
NEAR = 1e-9


def fit(x: np.ndarray, n_quantiles: int = 1000) -> dict[str, np.ndarray]:
    """Quantiles (Q, D) at Q = min(n_quantiles, n) equally spaced ranks, bit for bit those of np.quantile."""
    ascending = np.sort(x.T, axis=1)  # np.quantile would select each quantile by itself
    last = len(x) - 1
    at = np.linspace(0, 1, min(n_quantiles, len(x))) * last
    below = np.minimum(at.astype(int), max(last - 1, 0))
    low, high, weight = ascending[:, below], ascending[:, np.minimum(below + 1, last)], at - below
    quantiles = np.where(weight < 0.5, low + (high - low) * weight, high - (high - low) * (1 - weight))
    return {"quantiles": np.maximum.accumulate(quantiles, axis=1).T}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: int) -> np.ndarray:
    quantiles, features = state["quantiles"].T, np.ascontiguousarray(x.T)  # (D, Q), (D, N)
    scores = np.empty(features.shape)
    own = np.zeros(len(features), bool)
    if features.shape == quantiles.shape and len(x) > 1:  # perhaps the reference wells themselves
        own = _put_own_scores(features, quantiles, scores)
    scores[~own] = _normal(_interpolated(features[~own], quantiles[~own]))
    return scores.T.astype(x.dtype)


def _put_own_scores(features: np.ndarray, quantiles: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Fill in the `scores` (D, N) of features whose values are their quantiles, by sorting; bool (D,), which they are.

    Ranks equal those of `_interpolated`: tied wells get the mean of the ranks at which the quantile is their value, which
    the rounding of quantiles can exclude at both ends of a tie. Features with near ties are not filled in.
    """
    order = np.argsort(features, axis=1)
    ascending = np.take_along_axis(features, order, axis=1)
    scale = np.maximum(np.abs(ascending[:, :1]), np.abs(ascending[:, -1:]))
    gaps = np.diff(ascending, axis=1)
    tied = gaps == 0
    own = (tied | (gaps > NEAR * scale)).all(axis=1)
    own &= (np.abs(ascending - quantiles) <= 1e-3 * NEAR * scale).all(axis=1)
    position = np.arange(ascending.shape[1])
    first = last = np.broadcast_to(position, ascending.shape)
    if tied.any():
        starts = np.pad(~tied, ((0, 0), (1, 0)), constant_values=True)
        ends = np.pad(~tied, ((0, 0), (0, 1)), constant_values=True)
        single = starts & ends
        first = np.where(starts, position + (~single & (quantiles < ascending)), 0)
        last = np.where(ends, position - (~single & (quantiles > ascending)), position[-1])
        first = np.maximum.accumulate(first, axis=1)
        last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        own &= (first <= last).all(axis=1)
    twice = np.where(ascending == ascending[:, :1], 0, first + last)
    twice[ascending == ascending[:, -1:]] = 2 * position[-1]
    score_of = _normal(np.linspace(0, 1, 2 * position[-1] + 1))
    np.put_along_axis(scores, order, score_of[twice], axis=1)
    return own


def _interpolated(features: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Ranks (D, N) in 0..1 of any wells, by interpolation between quantiles (D, Q)."""
    at = np.linspace(0, 1, quantiles.shape[1])
    ranks = np.empty(features.shape)
    for values, q, rank in zip(features, quantiles, ranks, strict=True):
        # A value between tied quantiles gets the mean of their ranks: interpolate from below and from above.
        rank[:] = (np.interp(values, q, at) - np.interp(-values, -q[::-1], -at[::-1])) / 2
        rank[values <= q[0]], rank[values >= q[-1]] = 0, 1
    return ranks


def _normal(ranks: np.ndarray) -> np.ndarray:
    from scipy.special import ndtri

    return ndtri(np.clip(ranks, RANK_BOUND, 1 - RANK_BOUND))
