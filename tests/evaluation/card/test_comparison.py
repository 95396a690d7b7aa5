"""Paired comparison of cards, and cluster intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from morphoclip.evaluation import ScoreCard, compare, score
from morphoclip.evaluation.ranking.intervals import cluster_interval
from tests.evaluation.card.test_scorecard import FEATURES, QUICK


def test_paired_difference_finds_a_small_gain_that_intervals_miss(make_screen):
    """Two methods that share most of their noise: intervals overlap, the paired difference does not contain zero."""
    cards, others = [], []
    for seed in range(3):
        better = make_screen(9, signal=1.2)
        worse = better.copy()
        worse[FEATURES] += 0.8 * np.random.default_rng(seed).standard_normal((len(worse), len(FEATURES)))
        cards.append(score(better, **QUICK))
        others.append(score(worse, **QUICK))
    gain = compare(cards, others, ["replicate"])
    assert gain.ci_low > 0
    assert gain.n_seeds == 3
    pairs = zip(cards, others, strict=True)
    want = np.mean([a.value("replicate") - b.value("replicate") for a, b in pairs])
    assert gain.value == pytest.approx(want)
    back = compare(others, cards, ["replicate"])
    assert back.value == pytest.approx(-gain.value)
    assert compare(cards, cards, ["sister", "compound_gene"]).value == 0
    with pytest.raises(ValueError, match="3 cards against 2"):
        compare(cards, others[:2])


def test_cluster_interval_widens_with_dependence():
    """Each value ten times, as one cluster: the interval is that of the distinct values, not of all."""
    values = np.random.default_rng(0).standard_normal(40)
    low, high = cluster_interval(values, list(range(40)))
    repeated = cluster_interval(np.repeat(values, 10), np.repeat(np.arange(40), 10))
    naive = cluster_interval(np.repeat(values, 10), list(range(400)))
    assert repeated == pytest.approx((low, high))
    assert naive[1] - naive[0] < 0.5 * (high - low)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.1)
    assert all(np.isnan(cluster_interval(values, ["one"] * 40)))


def test_the_signed_rank_test_is_of_the_clusters_mean_differences():
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(30)]
    clusters = np.repeat(names, 2)
    rows = [f"row{i}" for i in range(60)]
    base = rng.uniform(0, 1, 60)
    gain = 0.05 * rng.standard_normal(60) + 0.03

    def card(values: np.ndarray) -> ScoreCard:
        table = pd.DataFrame({"row": rows, "cluster": clusters, "mean_average_precision": values})
        return ScoreCard(pd.DataFrame(), {"replicate": table}, {})

    found = compare([card(base + gain)], [card(base)], ["replicate"])
    want = wilcoxon(gain.reshape(30, 2).mean(axis=1)).pvalue
    assert found.wilcoxon_p == pytest.approx(want)
    assert found.wilcoxon_p < 0.05
    assert compare([card(base)], [card(base)], ["replicate"]).wilcoxon_p == 1
    assert compare([card(base)], [card(base + gain)], ["replicate"]).wilcoxon_p == pytest.approx(want)
