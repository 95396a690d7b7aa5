"""Paired comparison of two methods on common rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip.evaluation.card.scorecard import ScoreCard
from morphoclip.evaluation.ranking.intervals import cluster_weights, percentiles


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and its interval, over `n_rows` common rows in `n_clusters` clusters.

    `wilcoxon_p` is the two-sided p-value of Wilcoxon's signed-rank test of the clusters' mean differences, averaged over
    rows, tasks and seeds: that they are symmetric about 0. NaN with fewer than two clusters, 1 without any difference.
    """

    value: float
    ci_low: float
    ci_high: float
    n_rows: int
    n_clusters: int
    n_seeds: int
    wilcoxon_p: float = float("nan")

    def __str__(self) -> str:
        return (
            f"{self.value:+.3f} [{self.ci_low:+.3f}, {self.ci_high:+.3f}] "
            f"({self.n_rows} common rows in {self.n_clusters} clusters, {self.n_seeds} seeds)"
        )


def compare(
    cards: Sequence[ScoreCard],
    others: Sequence[ScoreCard],
    tasks: Sequence[str] = ("sister", "compound_gene"),
    *,
    gated: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    """Mean paired difference in mAP, `cards` minus `others`, on common rows, averaged over `tasks`.

    Card i is compared with other i (seeds of one experiment), or all cards with a single other. The interval resamples
    seeds and, jointly over tasks, clusters of rows that share perturbations. It is conditional on the plates.

    Args:
        gated: compare only rows of retrieved perturbations.

    Raises:
        ValueError: different numbers of cards, or a task without common rows.
    """
    cards, others = list(cards), list(others)
    if len(others) == 1:
        others = others * len(cards)
    if len(cards) != len(others):
        raise ValueError(f"{len(cards)} cards against {len(others)}: give equally many, or a single other")
    rows = [
        _paired_rows(a, b, task, gated).assign(seed=i)
        for i, (a, b) in enumerate(zip(cards, others, strict=True))
        for task in tasks
    ]
    table = pd.concat(rows, ignore_index=True)
    codes, names = pd.factorize(table["cluster"], sort=True)
    shape = (len(cards), len(tasks), len(names))
    cell = np.ravel_multi_index((table["seed"], pd.Categorical(table["task"], tasks).codes, codes), shape)
    sums = np.bincount(cell, table["difference"], np.prod(shape)).reshape(shape)
    counts = np.bincount(cell, minlength=np.prod(shape)).reshape(shape)

    def mean(seed_weights: np.ndarray, cluster_weights: np.ndarray) -> np.ndarray:
        total = np.einsum("ds,stc,dc->dt", seed_weights, sums, cluster_weights)
        number = np.einsum("ds,stc,dc->dt", seed_weights, counts, cluster_weights)
        share = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)  # NaN: no row was drawn
        return share.mean(axis=1)

    value = mean(np.ones((1, shape[0])), np.ones((1, shape[2])))[0]
    low = high = float("nan")
    if len(names) > 1:
        drawn = mean(cluster_weights(shape[0], draws, seed + 1), cluster_weights(shape[2], draws, seed))
        low, high = percentiles(drawn[np.isfinite(drawn)])
    common = len(table.drop_duplicates(["task", "row"]))
    p = _signed_rank(table.groupby("cluster")["difference"].mean().to_numpy())
    return Difference(float(value), low, high, common, len(names), len(cards), p)


def _signed_rank(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if len(differences) < 2:
        return float("nan")
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _paired_rows(a: ScoreCard, b: ScoreCard, task: str, gated: bool) -> pd.DataFrame:
    one, two = ((c.tables[task] if gated else c.shown_table(task)).set_index("row") for c in (a, b))
    common = one.index.intersection(two.index)
    if common.empty:
        raise ValueError(f"task {task}: the two methods have no row in common; compare ungated, or check the plates")
    difference = one.loc[common, "mean_average_precision"] - two.loc[common, "mean_average_precision"]
    return pd.DataFrame(
        {
            "row": common,
            "task": task,
            "difference": difference.to_numpy(),
            "cluster": one.loc[common, "cluster"].to_numpy(),
        }
    )
