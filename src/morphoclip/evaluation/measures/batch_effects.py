"""Measures of batch effects: silhouette, graph connectivity, LISI, plate mAP, correlation with cell count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows
from morphoclip.evaluation.tasks.protocol import Protocol, plate_sets

CONNECTIVITY_K = (1, 5, 10, 15)
LISI_K = (15, 30, 60, 90)
BY_STEP = ("silhouette", "graph_connectivity_k15", "lisi_k30", "plate_map")


def batch_scores(
    features: np.ndarray, batches: Sequence[str], seed: int = 0, metrics: Sequence[str] | None = None
) -> pd.DataFrame:
    """All batch metrics (or those named) of profiles (N, D), given the batch of each row.

    Returns:
        metric, value, chance. Higher silhouette, graph connectivity and plate mAP, and lower LISI, mean more batch effect.
        Chance is the same metric with batches shuffled. Metrics that need more neighbours than there are rows are omitted.

    Raises:
        ValueError: fewer than two batches.
    """
    batch = np.asarray(batches, dtype=str)
    if len(np.unique(batch)) < 2:
        raise ValueError(f"batch metrics need at least two batches, all rows are {batch[0]!r}")
    x = unit_rows(checked_features(features).astype(np.float64))
    nearest, distances = _nearest(x, max(*CONNECTIVITY_K, *LISI_K))
    order = np.lexsort(x.T)  # sorted by values, so that row order and batch names do not matter
    shuffled = np.empty_like(batch)
    shuffled[order] = np.random.default_rng(seed).permutation(batch[order])
    rows = []
    for name, function in _metrics(x, nearest, distances):
        if metrics is not None and name not in metrics:
            continue
        rows.append((name, function(batch), function(shuffled)))
    return pd.DataFrame(rows, columns=["metric", "value", "chance"])


def batch_scores_by_step(
    table: pd.DataFrame,
    protocol: Protocol,
    stages: Callable[[pd.DataFrame], Iterable[tuple[str, pd.DataFrame]]],
    seed: int = 0,
) -> pd.DataFrame:
    """Batch metrics of all wells of each set of plates before normalisation and after each of its steps.

    Batches are those of the protocol, or plates if a set has only one batch.

    Args:
        table: wells before normalisation.
        stages: wells of a set -> (name of a step, wells after it) for each step. Incomplete features are left out.

    Returns:
        subset, batch (batches or plates), step, features (their number) and the metrics BY_STEP. The last row of each
        set, 'shuffled batches', is the last stage with shuffled batches. Sets of one plate have no rows.
    """
    rows = []
    for plate_set in plate_sets(table, protocol)[0]:
        column = next((c for c in (protocol.batch_column, schema.PLATE) if _several(plate_set.table, c)), None)
        if column is None:
            continue
        about: dict[str, object] = {"subset": plate_set.name, "batch": column.removeprefix(schema.PREFIX).lower()}
        for name, wells in stages(plate_set.table):
            x = wells[schema.split_columns(wells)[1]].dropna(axis="columns").to_numpy()
            x = checked_features(x, partial(_well, wells, name))
            scores = batch_scores(x, wells[column].astype(str), seed, BY_STEP).set_index("metric")
            about |= {"step": name, "features": x.shape[1]}
            rows.append(about | scores["value"].to_dict())
        rows.append(about | {"step": "shuffled batches"} | scores["chance"].to_dict())
    return pd.DataFrame(rows)


def _well(wells: pd.DataFrame, step: str, row: int) -> str:
    return f"{wells[schema.PLATE].iloc[row]} {wells[schema.WELL].iloc[row]} after {step}"


def _several(wells: pd.DataFrame, column: str) -> bool:
    return column in wells and wells[column].nunique() > 1


def graph_connectivity(nearest: np.ndarray, batches: np.ndarray) -> float:
    """Mean over batches of the fraction of rows in the largest connected component of the batch's k-neighbour graph.

    `nearest` (N, k). 1 means that each batch is connected.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n, k = nearest.shape
    graph = csr_array((np.ones(n * k), (np.repeat(np.arange(n), k), nearest.ravel())), shape=(n, n))
    shares = []
    for batch in np.unique(batches):
        rows = np.flatnonzero(batches == batch)
        _, part = connected_components(graph[rows][:, rows], directed=False)
        shares.append(np.bincount(part).max() / len(rows))
    return float(np.mean(shares))


def lisi(nearest: np.ndarray, distances: np.ndarray, batches: np.ndarray, perplexity: float | None = None) -> float:
    """Mean inverse Simpson index of the batches among a row's neighbours (Korsunsky et al. 2019): 1 is a single batch.

    A neighbour at distance d has weight exp(-b d); b is chosen so that the entropy of the weights is log(perplexity).

    Args:
        nearest: (N, k) other rows. distances: (N, k), Euclidean. perplexity: default k/3, as in the original.
    """
    k = nearest.shape[1]
    weights = _weights(distances, perplexity or k / 3)
    codes, names = pd.factorize(batches)
    shares = np.stack([np.where(codes[nearest] == i, weights, 0).sum(axis=1) for i in range(len(names))], axis=1)
    return float((1 / np.square(shares).sum(axis=1)).mean())


def _weights(distances: np.ndarray, perplexity: float, halvings: int = 60) -> np.ndarray:
    """(N, k) weights that sum to 1 per row and have entropy log(perplexity); equal if all distances are equal."""
    distances = distances - distances.min(axis=1, keepdims=True)
    scale = distances.mean(axis=1, keepdims=True)
    distances = distances / np.where(scale > 0, scale, 1)
    low, high = np.full((len(distances), 1), -20.0), np.full((len(distances), 1), 20.0)  # log of b
    for _ in range(halvings):
        middle = (low + high) / 2
        kernel = np.exp(-np.exp(middle) * distances)
        weights = kernel / kernel.sum(axis=1, keepdims=True)
        entropy = -(weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1, keepdims=True)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return weights


def plate_map(features: np.ndarray, batches: np.ndarray) -> float:
    """Mean AP of retrieving rows of the same batch among all others."""
    meta = pd.DataFrame({"batch": batches})
    return float(average_precision(meta, features, ["batch"], [], [], ["batch"])["average_precision"].mean())


def cell_count_correlation(features: np.ndarray, counts: np.ndarray, components: int = 5) -> np.ndarray:
    """|Spearman correlation| of the leading principal components of DMSO wells (N, D) with their cell counts (N,)."""
    from scipy.stats import spearmanr
    from sklearn.decomposition import PCA

    components = min(components, *features.shape)
    scores = PCA(components, svd_solver="full").fit_transform(checked_features(features))
    return np.array([abs(spearmanr(column, counts).statistic) for column in scores.T])


def _metrics(x: np.ndarray, nearest: np.ndarray, distances: np.ndarray):
    from sklearn.metrics import silhouette_score

    yield "silhouette", lambda b: float((silhouette_score(x, b, metric="cosine") + 1) / 2)
    for k in CONNECTIVITY_K:
        if k <= nearest.shape[1]:
            yield f"graph_connectivity_k{k}", lambda b, k=k: graph_connectivity(nearest[:, :k], b)
    for k in LISI_K:
        if k <= nearest.shape[1]:
            yield f"lisi_k{k}", lambda b, k=k: lisi(nearest[:, :k], distances[:, :k], b)
    yield "plate_map", lambda b: plate_map(x, b)


def _nearest(unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 (N, k') nearest other rows by cosine, best first, and their Euclidean distances; k' = min(k, N - 1)."""
    k = min(k, len(unit) - 1)
    rows, distances = [], []
    for part in np.array_split(np.arange(len(unit)), 1 + len(unit) ** 2 // 2**24):
        similarity = unit[part] @ unit.T
        similarity[np.arange(len(part)), part] = -np.inf
        near = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similarity, near, axis=1), axis=1, kind="stable")
        rows.append(np.take_along_axis(near, order, axis=1))
        cosine = np.take_along_axis(similarity, rows[-1], axis=1)
        distances.append(np.sqrt(np.maximum(2 - 2 * cosine, 0)))
    return np.concatenate(rows), np.concatenate(distances)
