"""Counting against copairs, against every order of the ties, and on rows no cosine can rank."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from morphoclip.evaluation import average_precision, expected_average_precision, mean_average_precision

COLUMNS = ["pert", "plate", "well", "batch"]


def random_table(rng: np.random.Generator, rows: int = 40, features: int = 6) -> tuple[pd.DataFrame, np.ndarray]:
    sizes = {"pert": 6, "plate": 4, "well": 8, "batch": 2}
    meta = pd.DataFrame({c: [f"{c}{v}" for v in rng.integers(0, sizes[c], rows)] for c in COLUMNS})
    meta["labels"] = [sorted({f"t{v}" for v in rng.integers(0, 7, rng.integers(1, 4))}) for _ in range(rows)]
    return meta, rng.standard_normal((rows, features))


def random_rules(rng: np.random.Generator, columns: list[str]) -> list[list[str]]:
    """pos_sameby, pos_diffby, neg_sameby, neg_diffby: each column lands in one of same, different, neither."""
    rules: list[list[str]] = []
    for _ in range(2):
        while True:
            place = rng.integers(0, 3, len(columns))
            same, different = ([c for c, p in zip(columns, place, strict=True) if p == k] for k in (0, 1))
            if same or different:
                break
        rules += [same, different]
    return rules


@pytest.fixture
def copairs_map(monkeypatch):
    """copairs' average precision, comparing in float64: as shipped it swaps near-ties in float32."""
    copairs_map = pytest.importorskip("copairs.map")
    from copairs import compute

    functions = {"cosine": compute.pairwise_cosine, "abs_cosine": compute.pairwise_abs_cosine}

    def similarity_fn(distance, progress_bar=True):
        return lambda feats, pairs, _: functions[distance](feats[pairs[:, 0]], feats[pairs[:, 1]])

    monkeypatch.setattr(compute, "get_similarity_fn", similarity_fn)
    return copairs_map


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Counts and AP of every row, those without positives (NaN) or negatives (1) too; copairs clips the normalised."""
    counts = ["n_pos_pairs", "n_total_pairs"]
    np.testing.assert_array_equal(ours[counts], theirs[counts])
    np.testing.assert_allclose(ours["average_precision"], theirs["average_precision"], atol=1e-12, rtol=0)
    clipped = ours["normalized_average_precision"].clip(-1, 1)
    np.testing.assert_allclose(clipped, theirs["normalized_average_precision"], atol=1e-12, rtol=0)


@pytest.mark.parametrize("distance", ["cosine", "abs_cosine"])
@pytest.mark.parametrize("block", range(5))
def test_equals_copairs_on_random_rules(copairs_map, distance, block):
    """20 rule sets a case, 200 in all; the scan, the classes and the shared-block paths are all among them."""
    from copairs.matching import UnpairedException

    rng = np.random.default_rng([block, distance == "cosine"])
    scored, bare = 0, 0
    while scored < 20:
        meta, feats = random_table(rng, rows=int(rng.integers(20, 60)))
        rules = random_rules(rng, COLUMNS)
        try:
            theirs = copairs_map.average_precision(meta, feats, *rules, distance=distance, progress_bar=False)
        except UnpairedException:
            continue
        n_neg = theirs["n_total_pairs"] - theirs["n_pos_pairs"]
        paired = ((theirs["n_pos_pairs"] > 0) & (n_neg > 0)).to_numpy()
        if not paired.any():
            with pytest.raises(ValueError, match="pair"):
                average_precision(meta, feats, *rules, distance=distance)
            continue
        batch_size = [None, 1, 7][scored % 3]
        # some rules make a row positive and negative at once: a tie with itself
        ours = average_precision(meta, feats, *rules, distance=distance, ties="copairs", batch_size=batch_size)
        if (ours["tie_share"].fillna(0) == 0).all():
            expected = average_precision(meta, feats, *rules, distance=distance)
            np.testing.assert_array_equal(expected["average_precision"], ours["average_precision"])
        assert_same(ours, theirs)
        bare += (ours["n_pos_pairs"] == ours["n_total_pairs"]).sum()
        scored += 1
    assert bare > 10  # rows without negatives are among those compared


@pytest.mark.parametrize("distance", ["cosine", "abs_cosine"])
def test_multilabel_equals_copairs(copairs_map, distance):
    from copairs.map.multilabel import average_precision as theirs_multilabel

    rng = np.random.default_rng(7)
    scored = 0
    while scored < 20:
        meta, feats = random_table(rng)
        positive_diff = [c for c in COLUMNS if rng.random() < 0.3]
        negative_diff = [c for c in COLUMNS if rng.random() < 0.2]
        rules = (["labels"], positive_diff, [], ["labels", *negative_diff])
        theirs = theirs_multilabel(
            meta, feats, *rules, multilabel_col="labels", distance=distance, progress_bar=False
        ).sort_values(["labels", *COLUMNS], kind="stable")
        ours = average_precision(meta, feats, *rules, distance=distance, multilabel_col="labels")
        assert len(ours) == len(theirs)
        key = ["labels", "n_pos_pairs", "n_total_pairs"]
        ours = ours.sort_values([*key, "average_precision"], ignore_index=True)
        theirs = theirs.sort_values([*key, "average_precision"], ignore_index=True)
        np.testing.assert_array_equal(ours[key].astype(str), theirs[key].astype(str))
        assert_same(ours, theirs)
        scored += 1


def test_a_profile_that_shares_a_label_with_all_others_has_nothing_to_rank():
    """AP is 1 and so is chance; copairs 0.5.5 looks up another profile's negatives there, or fails."""
    rng = np.random.default_rng(7)
    meta = pd.DataFrame({"labels": [["a"], ["a"], ["b"], ["a", "b"], ["b"]]})
    table = average_precision(
        meta, rng.standard_normal((5, 4)), ["labels"], [], [], ["labels"], multilabel_col="labels"
    ).set_index("labels")
    both = table[table["n_pos_pairs"] == table["n_total_pairs"]]
    assert both.index.tolist() == ["a", "b"]
    assert both["n_pos_pairs"].tolist() == [2, 2]
    assert (both["average_precision"] == 1).all()
    assert (both["normalized_average_precision"] == 0).all()
    assert mean_average_precision(table.reset_index(), ["labels"], null_size=50)["n_queries"].tolist() == [2, 2]


def precision_of(order: list[bool]) -> float:
    hits = np.cumsum(order)
    return float((hits / np.arange(1, len(order) + 1))[np.array(order)].mean())


@pytest.mark.parametrize("ties", ["expected", "copairs"])
def test_ties_are_averaged_over_every_order(ties):
    """One query, positives at similarities 2 tied + 1 free, negatives tied with them: enumerate the orders."""
    angle = {"high": 0.1, "mid": 0.5, "low": 1.2}
    names = ["query", "pos", "pos", "pos", "neg", "neg", "neg", "neg"]
    where = [0.0, angle["mid"], angle["mid"], angle["low"], angle["high"], angle["mid"], angle["mid"], angle["low"]]
    feats = np.stack([np.cos(where), np.sin(where)], axis=1)
    meta = pd.DataFrame({"pert": ["a"] * 4 + ["dmso"] * 4, "control": [0] * 4 + [1] * 4, "name": names})
    ours = average_precision(meta, feats, ["pert"], [], [], ["control"], ties=ties)
    blocks = [[False], [True, True, False, False], [True, False]]
    orders = itertools.product(*(list(itertools.permutations(block)) for block in blocks))
    values = [precision_of([x for block in order for x in block]) for order in orders]
    want = np.mean(values) if ties == "expected" else precision_of([False, True, True, False, False, True, False])
    assert ours["average_precision"].iloc[0] == pytest.approx(want, abs=1e-12)
    assert ours["tie_share"].iloc[0] == pytest.approx((2 * 2 + 1) / 12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [12, 3000])
def test_a_constant_embedding_scores_chance(dtype, rows):
    meta = pd.DataFrame({"pert": [f"p{i % 3}" if i < 9 else "dmso" for i in range(rows)]})
    meta["control"] = meta["pert"] == "dmso"
    feats = np.tile(np.random.default_rng(0).standard_normal(700), (rows, 1)).astype(dtype)
    table = average_precision(meta, feats, ["pert"], [], [], ["control"])
    chance = expected_average_precision(table["n_pos_pairs"], table["n_total_pairs"])
    np.testing.assert_allclose(table["average_precision"], chance, atol=1e-9)
    assert (table["tie_share"] == 1).all()
    best = average_precision(meta, feats, ["pert"], [], [], ["control"], ties="copairs")
    assert (best["average_precision"] == 1).all()


def test_chance_is_the_mean_over_all_rankings():
    rankings = [precision_of([i in hits for i in range(9)]) for hits in map(set, itertools.combinations(range(9), 4))]
    assert expected_average_precision(4, 9) == pytest.approx(np.mean(rankings), abs=1e-12)
    assert expected_average_precision(3, 67) == pytest.approx(0.0996, abs=5e-5)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "NaN"), (np.inf, "infinite"), (0.0, "only zeros")], ids=["nan", "inf", "zero"]
)
def test_rows_without_a_direction_are_named(value, words):
    rng = np.random.default_rng(0)
    meta, feats = random_table(rng)
    meta = meta.assign(Metadata_Plate="P1", Metadata_Well=[f"A{i:02d}" for i in range(len(meta))])
    feats[13] = value
    with pytest.raises(ValueError, match=words) as error:
        average_precision(meta, feats, ["pert"], [], [], ["plate"])
    assert "P1 A13" in str(error.value)


def test_bad_rules_are_refused():
    meta, feats = random_table(np.random.default_rng(0))
    with pytest.raises(ValueError, match="no column"):
        average_precision(meta, feats, ["nothing"], [], [], ["pert"])
    with pytest.raises(ValueError, match="both a sameby and a diffby"):
        average_precision(meta, feats, ["pert"], ["pert"], [], ["plate"])
    with pytest.raises(ValueError, match="missing values"):
        average_precision(meta.assign(plate=None), feats, ["pert"], [], [], ["plate"])
    with pytest.raises(ValueError, match="no profile has a positive pair"):
        average_precision(meta.assign(only=range(len(meta))), feats, ["only"], [], [], ["pert"])
    with pytest.raises(ValueError, match="distance"):
        average_precision(meta, feats, ["pert"], [], [], ["plate"], distance="cosin")


def test_row_order_scale_and_batch_change_nothing():
    rng = np.random.default_rng(3)
    meta, feats = random_table(rng, rows=400, features=20)
    rules = (["pert"], ["plate"], ["batch"], ["pert"])
    base = average_precision(meta, feats, *rules)["average_precision"].to_numpy()
    order = rng.permutation(len(meta))
    scaled = feats * rng.uniform(1e-3, 1e3, (len(meta), 1))
    moved = average_precision(meta.iloc[order], scaled[order], *rules, batch_size=17)["average_precision"].to_numpy()
    np.testing.assert_allclose(moved, base[order], atol=1e-12)
