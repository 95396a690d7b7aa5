"""Nearest-neighbour scores: NSB and NSBP accuracy, precision and F1 at k (Kim et al. 2025; Ando et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from morphoclip.evaluation.ranking.similarity import checked_features, similarity, unit_rows

_BLOCK = 2**22
DISTANCES = np.arange(1, 101, 3) / 100  # correlation distances of the curve in Kim et al.'s code


def nearest_neighbour_accuracy(
    features: np.ndarray,
    labels: Sequence[set[str]],
    *not_same: Sequence[str],
) -> tuple[float, float, int]:
    """Fraction of rows whose nearest neighbour (cosine), among rows that differ in every `not_same`, shares a label.

    NSB: labels are perturbations, `not_same` the batch. NSBP: labels are targets, `not_same` batch and perturbation.
    Rows without a label, or without a candidate that shares one, are not queries. Ties count fractionally.

    Args:
        features: (N, D). labels: N sets. not_same: columns of N values.

    Returns:
        (accuracy, chance, number of queries); NaN, NaN, 0 without queries. Chance is the fraction of matching candidates.
    """
    hit, chance = nearest_hits(features, labels, *not_same)
    asking = np.isfinite(hit)
    if not asking.any():
        return float("nan"), float("nan"), 0
    return float(hit[asking].mean()), float(chance[asking].mean()), int(asking.sum())


def nearest_hits(
    features: np.ndarray, labels: Sequence[set[str]], *not_same: Sequence[str], distance: str = "cosine"
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_neighbour_accuracy` of each row: (hit (N,), chance (N,)), NaN for rows that are no query."""
    measure = similarity(distance)
    x = measure.prepare(checked_features(features))
    match = _sharing(labels)
    columns = [np.unique(np.asarray(values, dtype=str), return_inverse=True)[1] for values in not_same]
    hits, chances = np.full((2, len(x)), np.nan)
    for rows in np.array_split(np.arange(len(x)), 1 + len(x) ** 2 // _BLOCK):
        allowed = rows[:, None] != np.arange(len(x))
        for codes in columns:
            allowed &= codes[rows][:, None] != codes
        right = match[rows] & allowed
        asking = right.any(axis=1)
        found = np.where(allowed, measure.block(x[rows], x), -np.inf)[asking]
        best = found >= found.max(axis=1, keepdims=True, initial=-np.inf) - 1e-12
        hits[rows[asking]] = (best & right[asking]).sum(axis=1) / best.sum(axis=1)
        chances[rows[asking]] = right[asking].sum(axis=1) / allowed[asking].sum(axis=1)
    return hits, chances


def precision_at_k(features: np.ndarray, labels: Sequence[set[str]], k: int) -> tuple[float, float, float, int]:
    """Mean precision and F1 of the k nearest neighbours (cosine) that share a label with the query.

    F1 combines precision hits/k and recall hits/positives, and is averaged over queries. Rows without positives are not
    queries.

    Returns:
        (precision, F1, chance of precision, number of queries).

    Raises:
        ValueError: fewer than k other rows.
    """
    if len(features) <= k:
        raise ValueError(f"{len(features)} profiles are too few for {k} neighbours each: lower k")
    x = unit_rows(checked_features(features))
    match = _sharing(labels)
    np.fill_diagonal(match, False)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    asking = match.any(axis=1)
    hits = np.take_along_axis(match, nearest, axis=1).sum(axis=1)[asking]
    positives = match.sum(axis=1)[asking]
    f1 = 2 * hits / (k + positives)  # = 2PR / (P + R)
    if not asking.any():
        return float("nan"), float("nan"), float("nan"), 0
    chance = positives.mean() / (len(x) - 1)
    return float((hits / k).mean()), float(f1.mean()), float(chance), int(asking.sum())


def f1_over_k(centred: np.ndarray, labels: Sequence[set[str]], ks: Sequence[int]) -> Iterator[tuple[int, float]]:
    """(k, F1) for each k below the number of rows, from mean precision and mean recall at k (Kim et al. 2025).

    Unlike the F1 of `precision_at_k`, which is averaged over queries, it combines the two means. `centred` (N, D) are
    profiles minus their row means; rows that share no label with another are not queries.
    """
    x = unit_rows(checked_features(centred))
    match = _sharing(labels)
    np.fill_diagonal(match, False)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1, kind="stable")
    asking = match.any(axis=1)
    hits = np.take_along_axis(match, order, axis=1)[asking].cumsum(axis=1)
    positives = match.sum(axis=1)[asking]
    for k in ks:
        if k < len(x) and asking.any():
            precision, recall = (hits[:, k - 1] / k).mean(), (hits[:, k - 1] / positives).mean()
            yield k, float(2 * precision * recall / (precision + recall)) if recall else 0.0


def threshold_grid_precision(features: np.ndarray, labels: Sequence[set[str]]) -> tuple[float, float, int]:
    """Area under the precision-recall curve of "closer than d shares a label", d over a fixed grid (Kim et al. 2025).

    At each correlation distance d of DISTANCES, precision (0 without neighbours) and recall are averaged over the rows
    that share a label with another, and the area is computed by trapezoids. Unlike average precision it compares the
    distances of different rows, and it ends at uncorrelated profiles: rows beyond d = 1 do not count.

    Returns:
        (area, chance, number of queries); chance is computed with the expected precision of random labels.
    """
    features = checked_features(features).astype(np.float64)
    x = unit_rows(checked_features(features - features.mean(axis=1, keepdims=True)))
    distance = 1 - x @ x.T
    np.fill_diagonal(distance, np.inf)
    match = _sharing(labels)
    np.fill_diagonal(match, False)
    asking = match.any(axis=1)
    if not asking.any():
        return float("nan"), float("nan"), 0
    distance, match = distance[asking], match[asking]
    positives = match.sum(axis=1)
    share = positives / (len(x) - 1)
    precision, recall, by_chance = [], [], []
    for threshold in DISTANCES:
        near = distance < threshold + 1e-6
        hits, found = (near & match).sum(axis=1), near.sum(axis=1)
        precision.append((hits / np.maximum(found, 1)).mean())
        recall.append((hits / positives).mean())
        by_chance.append(((found > 0) * share).mean())
    area, chance = np.trapezoid(precision, recall), np.trapezoid(by_chance, recall)
    return float(area), float(chance), len(positives)


def _sharing(labels: Sequence[set[str]]) -> np.ndarray:
    """bool (N, N): rows with a label in common."""
    import pandas as pd

    from morphoclip.evaluation.ranking.multilabel import label_incidence

    incidence, _ = label_incidence(pd.Series([sorted(x) for x in labels], name="labels"))
    return (incidence @ incidence.T).toarray() > 0
