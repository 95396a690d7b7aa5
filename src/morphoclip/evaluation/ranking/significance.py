"""Mean average precision of groups, with p and q by the conventions that need only the AP table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.table import ranked

_CHUNK = 2**22
_ROUNDING = 2e-7


def mean_average_precision(
    ap: pd.DataFrame,
    sameby: Sequence[str],
    *,
    null_size: int = 100_000,
    p_convention: str = "copairs",
    threshold: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean AP of each group of rows equal in `sameby`, its p against random rankings and Benjamini-Hochberg's q.

    Conventions (docs/evaluation.md). Neither is valid under noise, since the members of a group share pair scores:
        'published': as in the CPJUMP1 paper, a group's p is the geometric mean of its rows' p.
        'copairs': as in copairs 0.5.5, the group's mean AP against the mean of its rows' nulls, where rows of one
            (n_pos, n_total) share one null vector.
    Both count strictly larger nulls: p = (1 + #{null > score}) / (1 + null_size).

    Args:
        ap: a table with average_precision, n_pos_pairs, n_total_pairs; rows without AP or without negatives are left
            out.
        null_size: random rankings per configuration, seeded by (seed, n_pos, n_total) so that row order does not matter.

    Returns:
        One row per group: `sameby`, mean_average_precision, mean_normalized_average_precision, n_queries, p_value,
        corrected_p_value, below_p, below_corrected_p. `.attrs` holds p_convention and smallest_p.
    """
    check_draws("null_size", null_size)
    if p_convention not in ("published", "copairs"):
        raise ValueError(f"p_convention={p_convention!r}: choose 'published' or 'copairs' ('exact' is exchange_test)")
    sameby = list(sameby)
    rows = ranked(ap).reset_index(drop=True)
    if rows.empty:
        raise ValueError("no row has both positives and negatives: nothing to average")
    configurations, null_of = np.unique(rows[["n_pos_pairs", "n_total_pairs"]].to_numpy(), axis=0, return_inverse=True)
    nulls = [null_distribution(int(k), int(n), null_size, seed) for k, n in configurations]
    table = _means(rows, sameby)
    grouped = rows.groupby(sameby, sort=True).indices.values()
    if p_convention == "published":
        row_p = _row_p(rows["average_precision"].to_numpy(), nulls, null_of)
        table["p_value"] = [np.exp(np.log(row_p[members]).mean()) for members in grouped]
    else:
        means = table["mean_average_precision"].to_numpy()
        table["p_value"] = [
            _group_p(mean, nulls, null_of[members]) for mean, members in zip(means, grouped, strict=True)
        ]
    table = with_q(table, threshold)
    table.attrs = {"p_convention": p_convention, "smallest_p": 1 / (1 + null_size)}
    return table


def check_draws(name: str, draws: int) -> None:
    """Raise ValueError, naming the argument, unless `draws` is an integer of at least 1."""
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise ValueError(f"{name}={draws!r}: give an integer of at least 1")


def null_distribution(n_pos: int, n_total: int, size: int, seed: int) -> np.ndarray:
    """float32 (size,) AP of random rankings of `n_pos` positives among `n_total`."""
    rng = np.random.default_rng([seed, n_pos, n_total])
    order = np.arange(1, n_pos + 1)
    parts = []
    for start in range(0, size, step := max(1, _CHUNK // n_total)):
        ranks = _random_subsets(rng, min(step, size - start), n_pos, n_total)
        parts.append((order / (ranks + 1)).mean(axis=1))
    return np.concatenate(parts).astype(np.float32)


def with_q(table: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Add corrected_p_value (Benjamini-Hochberg over the rows of `table`), below_p and below_corrected_p."""
    from statsmodels.stats.multitest import multipletests

    q = multipletests(table["p_value"], method="fdr_bh")[1] if len(table) else np.empty(0)
    return table.assign(
        corrected_p_value=q, below_p=table["p_value"] < threshold, below_corrected_p=np.asarray(q) < threshold
    )


def _means(rows: pd.DataFrame, sameby: list[str]) -> pd.DataFrame:
    grouped = rows.groupby(sameby, sort=True)
    table = grouped.agg(mean_average_precision=("average_precision", "mean"), n_queries=("average_precision", "size"))
    if "normalized_average_precision" in rows:
        table["mean_normalized_average_precision"] = grouped["normalized_average_precision"].mean()
    return table.reset_index()


def _random_subsets(rng: np.random.Generator, draws: int, k: int, n: int) -> np.ndarray:
    """int64 (draws, k): sorted random k-subsets of range(n)."""
    if k * k > 2 * n:
        return np.sort(np.argpartition(rng.random((draws, n)), k - 1, axis=1)[:, :k], axis=1)
    ranks = np.sort(rng.integers(0, n, (draws, k)), axis=1)
    while len(repeated := np.flatnonzero((np.diff(ranks, axis=1) == 0).any(axis=1))):
        ranks[repeated] = np.sort(rng.integers(0, n, (len(repeated), k)), axis=1)  # few, as k² <= 2n
    return ranks


def _row_p(scores: np.ndarray, nulls: list[np.ndarray], null_of: np.ndarray) -> np.ndarray:
    """p of each row. A null that equals the score up to rounding to float32 does not count as larger."""
    p = np.empty(len(scores))
    for i, null in enumerate(nulls):
        rows = null_of == i
        larger = len(null) - np.sort(null).astype(np.float64).searchsorted(scores[rows] * (1 + _ROUNDING), "right")
        p[rows] = (1 + larger) / (1 + len(null))
    return p


def _group_p(score: float, nulls: list[np.ndarray], members: np.ndarray) -> float:
    larger = 0
    size = len(nulls[0])
    for start in range(0, size, step := max(1, _CHUNK // len(members))):
        part = np.stack([null[start : start + step] for null in nulls])  # (configurations, draws)
        larger += int((part[members].mean(axis=0) > score).sum())  # float32, row by row: the same sums as in copairs
    return (1 + larger) / (1 + size)
