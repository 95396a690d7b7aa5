"""Cross-modal retrieval: recall at k (R@k) of the correct structure or gene among distinct candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.similarity import checked_features, tie_tolerance, unit_rows

ENOUGH_CANDIDATES = 100


def recall_at_k(
    queries: np.ndarray,
    candidates: np.ndarray,
    positives: Sequence[Sequence[int]],
    ks: Sequence[int] = (1, 5, 10),
    *,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Probability that at least one positive is among the k best candidates (cosine), averaged over queries.

    Candidates must be distinct, e.g. one embedding per structure, and a query is one consensus profile: replicate wells
    share a prompt, so ranking wells would count the same answer many times.

    Args:
        queries: (Q, D). candidates: (C, D). positives: for each query the rows of its correct candidates.
        names: C names of the candidates, to check that they are distinct.

    Returns:
        k, recall, chance, n_queries, n_candidates, note. Ties are averaged over their orders; chance follows from the
        number of positives. `note` warns if there are fewer than 100 candidates.

    Raises:
        ValueError: candidates repeat, or a query has no positive.
    """
    if names is not None and len(set(names)) < len(names):
        raise ValueError(f"{len(names) - len(set(names))} candidates are repeated: rank distinct structures or genes")
    if any(not len(p) for p in positives):
        raise ValueError("a query has no correct candidate: leave it out")
    a, b = unit_rows(checked_features(queries)), unit_rows(checked_features(candidates))
    similarity = a @ b.T
    tolerance = tie_tolerance(similarity.dtype)
    n = len(b)
    note = "" if n >= ENOUGH_CANDIDATES else f"only {n} candidates: not comparable to scores with more"
    rows = []
    for k in ks:
        found = [
            _found_in_top(values, list(right), k, tolerance)
            for values, right in zip(similarity, positives, strict=True)
        ]
        chance = [1 - _all_missed(n, len(right), k) for right in positives]
        rows.append((k, np.mean(found), np.mean(chance), len(a), n, note))
    return pd.DataFrame(rows, columns=["k", "recall", "chance", "n_queries", "n_candidates", "note"])


def _found_in_top(values: np.ndarray, right: list[int], k: int, tolerance: float) -> float:
    """Probability, over the orders of ties, that the best positive is among the first k."""
    best = values[right].max()
    ahead = int((values > best + tolerance).sum())
    level = np.flatnonzero(np.abs(values - best) <= tolerance)
    free = k - ahead  # ranks left for those tied with the best positive
    if free <= 0:
        return 0.0
    mine = np.isin(level, right).sum()
    return 1 - _all_missed(len(level), int(mine), free)


def _all_missed(total: int, positives: int, k: int) -> float:
    """Probability that k ranks drawn from `total` hold no positive: C(total - positives, k) / C(total, k)."""
    if k >= total:
        return 0.0 if positives else 1.0
    drawn = np.arange(k)
    return float(np.prod(np.maximum(total - positives - drawn, 0) / (total - drawn)))
