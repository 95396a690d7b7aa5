"""The exchange null against recomputing every pseudo-group from scratch, on noise, and on a planted effect."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip.evaluation import average_precision, exchange_test, mean_average_precision
from morphoclip.evaluation.ranking import exchange
from morphoclip.evaluation.ranking.rules import Rules

RULES = (["pert"], [], ["plate"], ["control"])


def screen(
    rng: np.random.Generator, plates: int, controls: int, groups: int = 1, effect: float = 0.0, features: int = 12
) -> tuple[pd.DataFrame, np.ndarray]:
    """`groups` treatments, a well a plate, against `controls` wells a plate."""
    names = [f"c{i}" for i in range(groups)] + ["dmso"] * controls
    meta = pd.DataFrame({"pert": names * plates, "plate": np.repeat([f"P{i}" for i in range(plates)], len(names))})
    meta["control"] = meta["pert"] == "dmso"
    feats = rng.standard_normal((len(meta), features))
    shift = {f"c{i}": effect * rng.standard_normal(features) for i in range(groups)}
    return meta, feats + np.stack([shift.get(name, np.zeros(features)) for name in meta["pert"]])


@pytest.mark.parametrize("wells", [1, 2])
@pytest.mark.parametrize("distinct", [False, True])
def test_pseudo_groups_score_as_average_precision_says(monkeypatch, wells, distinct):
    """Relabel the rows as each draw did and score them anew; also with two wells a plate and `pos_diffby`."""
    rng = np.random.default_rng(wells)
    meta, feats = screen(rng, plates=3, controls=7, groups=wells)
    meta.loc[~meta["control"], "pert"] = "a"
    meta["well"] = [f"w{i}" for i in rng.integers(0, 6, len(meta))]
    rules = (["pert"], ["well"] if distinct else [], ["plate"], ["control"])
    seen = []
    original = exchange.Pool.scores

    def spy(pool, members):
        scores = original(pool, members)
        seen.append((members, pool.similarities, scores))
        return scores

    monkeypatch.setattr(exchange.Pool, "scores", spy)
    given = Rules(*map(tuple, rules))
    exchange.exchange_nulls(meta, feats, given, exchange_with="negatives", draws=25, queries=~meta["control"])
    unit = feats / np.linalg.norm(feats, axis=1, keepdims=True)
    ours = np.sort(unit @ unit.T, axis=1)
    for members, similarities, scores in seen:
        row_of = [int(np.abs(ours - row).sum(axis=1).argmin()) for row in np.sort(similarities, axis=1)]
        for drawn, score in zip(members, scores, strict=True):
            chosen = np.isin(np.arange(len(meta)), [row_of[i] for i in drawn])
            relabelled = meta.assign(pert=np.where(chosen, "a", "dmso"), control=~chosen)
            if np.isnan(score):
                with pytest.raises(ValueError, match="no profile has a positive pair"):
                    average_precision(relabelled, feats, *rules, queries=chosen)
                continue
            table = average_precision(relabelled, feats, *rules, queries=chosen)
            assert score == pytest.approx(table["average_precision"].mean(), abs=1e-6)
    assert sum(np.isfinite(scores).sum() for _, _, scores in seen) == 26


@pytest.mark.parametrize("sides", [False, True])
def test_permuted_labels_score_as_average_precision_says(monkeypatch, sides):
    rng = np.random.default_rng(11)
    n, draws = 24, 15
    meta = pd.DataFrame({"side": ["x", "y"] * (n // 2) if sides else ["x"] * n})
    meta["labels"] = [sorted({f"t{v}" for v in rng.integers(0, 6, rng.integers(1, 4))}) for _ in range(n)]
    feats = rng.standard_normal((n, 5))
    diffby = ["side"] if sides else []
    rules = (["labels"], diffby, [], ["labels", *diffby])
    given = Rules(*map(tuple, rules), distance="abs_cosine", multilabel_col="labels")
    nulls = exchange.exchange_nulls(meta, feats, given, exchange_with="labels", draws=draws)
    base = average_precision(meta, feats, *rules, distance="abs_cosine", multilabel_col="labels")
    base = base.groupby("labels")["average_precision"].mean()
    assert {k: pytest.approx(v[0], abs=1e-6) for k, v in nulls.items()} == base.dropna().to_dict()
    # repeat the draws: label sets move over the profiles, in the order the null sorts them
    unit = feats / np.linalg.norm(feats, axis=1, keepdims=True)
    side = pd.factorize(meta["side"])[0]
    order = np.lexsort([np.abs(unit @ unit.T).sum(axis=1), side])
    permuted = np.tile(np.arange(n), (draws + 1, 1))
    generator = np.random.default_rng([0, n, len(base)])
    for code in np.unique(side):
        columns = np.flatnonzero(side[order] == code)
        permuted[1:, columns] = generator.permuted(permuted[1:, columns], axis=1)
    for draw in range(1, draws + 1):
        moved = meta.copy()
        labels = meta["labels"].tolist()
        place = np.empty(n, object)
        for slot, profile in enumerate(permuted[draw]):
            place[order[profile]] = labels[order[slot]]
        moved["labels"] = place
        table = average_precision(moved, feats, *rules, distance="abs_cosine", multilabel_col="labels")
        for label, value in table.groupby("labels")["average_precision"].mean().dropna().items():
            assert nulls[label][1][draw - 1] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(("plates", "controls"), [(2, 8), (4, 16), (5, 64)])
def test_noise_is_found_no_more_often_than_promised(plates, controls):
    """200 seeds of pure noise at p < .05: at most .05 and two standard errors."""
    found = []
    for seed in range(200):
        meta, feats = screen(np.random.default_rng([seed, plates, controls]), plates, controls)
        meta["pert"] = meta["pert"].replace("c0", f"c{seed}")  # a group's name sets its draws apart
        table = exchange_test(
            meta, feats, *RULES, ["pert"], exchange_with="negatives", draws=199, queries=~meta["control"]
        )
        found.append(table["p_value"].iloc[0] < 0.05)
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_label_permutation_holds_on_noise():
    found = []
    for seed in range(40):
        rng = np.random.default_rng([seed, 1])
        meta = pd.DataFrame({"labels": [[f"t{v}" for v in sorted(set(rng.integers(0, 8, 2)))] for _ in range(30)]})
        table = exchange_test(
            meta, rng.standard_normal((30, 8)), ["labels"], [], [], ["labels"], ["labels"],
            exchange_with="labels", draws=300, distance="abs_cosine",
        )  # fmt: skip
        found.append((table["p_value"] < 0.05).mean())
    assert np.mean(found) <= 0.05 + 2 * np.std(found) / np.sqrt(len(found))


def test_a_planted_effect_is_found():
    meta, feats = screen(np.random.default_rng(0), plates=4, controls=16, groups=30, effect=1.0)
    treated = ~meta["control"].to_numpy()
    exact = exchange_test(meta, feats, *RULES, ["pert"], exchange_with="negatives", draws=2000, queries=treated)
    ap = average_precision(meta, feats, *RULES, queries=treated).dropna()
    copairs = mean_average_precision(ap, ["pert"], null_size=2000)
    assert exact["below_corrected_p"].mean() > 0.5
    assert exact["below_corrected_p"].mean() > 0.8 * copairs["below_corrected_p"].mean()


def test_neither_order_nor_names_matter():
    rng = np.random.default_rng(2)
    meta, feats = screen(rng, plates=3, controls=10, groups=4, effect=0.4)
    want = exchange_test(meta, feats, *RULES, ["pert"], exchange_with="negatives", draws=300, queries=~meta["control"])
    order = rng.permutation(len(meta))
    moved = meta.iloc[order].replace({"plate": {"P0": "Z9", "P1": "A1", "P2": "M5"}}).reset_index(drop=True)
    got = exchange_test(
        moved, 7.3 * feats[order], *RULES, ["pert"], exchange_with="negatives", draws=300, queries=~moved["control"]
    )
    np.testing.assert_array_equal(got["p_value"], want["p_value"])
    assert got.attrs == {"p_convention": "exact", "smallest_p": 1 / 301}


def test_a_constant_embedding_finds_nothing():
    meta, feats = screen(np.random.default_rng(2), plates=3, controls=10, groups=4)
    table = exchange_test(
        meta, np.ones_like(feats), *RULES, ["pert"], exchange_with="negatives", draws=200, queries=~meta["control"]
    )
    assert (table["p_value"] == 1).all()


def test_unfit_rules_are_refused():
    meta, feats = screen(np.random.default_rng(2), plates=2, controls=5)
    with pytest.raises(ValueError, match="exchange_with"):
        exchange_test(meta, feats, *RULES, ["pert"], exchange_with="positives")
    with pytest.raises(ValueError, match="different negatives"):
        exchange_test(meta, feats, ["plate"], [], [], ["control"], ["plate"], exchange_with="negatives")
    with pytest.raises(ValueError, match="draws=0: give an integer of at least 1"):
        exchange_test(meta, feats, *RULES, ["pert"], exchange_with="negatives", draws=0)
