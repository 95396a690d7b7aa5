"""p and q against copairs given its null, and against a pair-by-pair account of the published way."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from morphoclip.evaluation import average_precision, expected_average_precision, mean_average_precision
from morphoclip.evaluation.ranking import significance


@pytest.fixture
def scored() -> pd.DataFrame:
    """32 treatments x 3 plates against 16 controls a plate, some treatments with an effect."""
    rng = np.random.default_rng(5)
    pert = np.tile([f"c{i:02d}" if i < 32 else "dmso" for i in range(48)], 3)
    meta = pd.DataFrame({"pert": pert, "plate": np.repeat(["a", "b", "c"], 48), "control": pert == "dmso"})
    effect = {name: rng.standard_normal(8) for name in meta["pert"].unique()[:10]}
    feats = rng.standard_normal((len(meta), 8)) + np.stack([effect.get(p, np.zeros(8)) for p in meta["pert"]])
    table = average_precision(meta, feats, ["pert"], [], ["plate"], ["control"], queries=(pert != "dmso"))
    return table[~table["control"]]


def test_equals_copairs_given_its_null(scored, tmp_path, monkeypatch):
    copairs_map = pytest.importorskip("copairs.map")
    from copairs import compute

    # unequal groups, so that means mix configurations
    scored = pd.concat([scored, scored.assign(n_pos_pairs=3, n_total_pairs=30).iloc[::2]], ignore_index=True)
    theirs = copairs_map.mean_average_precision(
        scored, ["pert"], null_size=2000, threshold=0.05, seed=3, progress_bar=False, cache_dir=tmp_path
    )
    configurations = np.unique(scored[["n_pos_pairs", "n_total_pairs"]].to_numpy(), axis=0)
    drawn = compute.get_null_dists(configurations, 2000, seed=3, cache_dir=tmp_path, progress_bar=False)
    given = {tuple(map(int, c)): null for c, null in zip(configurations, drawn, strict=True)}
    monkeypatch.setattr(significance, "null_distribution", lambda k, n, size, seed: given[k, n])
    ours = mean_average_precision(scored, ["pert"], null_size=2000, p_convention="copairs", seed=3)
    for column in ("mean_average_precision", "p_value", "corrected_p_value"):
        np.testing.assert_allclose(ours[column], theirs[column], atol=1e-12, rtol=0)
    np.testing.assert_array_equal(ours["below_corrected_p"], theirs["below_corrected_p"])


def test_published_is_the_geometric_mean_of_strict_row_p(scored):
    ours = mean_average_precision(scored, ["pert"], null_size=500, p_convention="published", seed=1)
    for group in ours.itertuples():
        rows = scored[scored["pert"] == group.pert]
        logs = []
        for row in rows.itertuples():
            null = significance.null_distribution(row.n_pos_pairs, row.n_total_pairs, 500, 1)
            larger = sum(value > row.average_precision * (1 + 2e-7) for value in null.astype(float))
            logs.append(np.log((larger + 1) / 501))
        assert group.p_value == pytest.approx(np.exp(np.mean(logs)), rel=1e-12)
        assert group.mean_average_precision == pytest.approx(rows["average_precision"].mean(), abs=1e-14)
    order = np.argsort(ours["p_value"].to_numpy())
    steps = ours["p_value"].to_numpy()[order] * len(ours) / np.arange(1, len(ours) + 1)
    np.testing.assert_allclose(ours["corrected_p_value"].to_numpy()[order], np.minimum.accumulate(steps[::-1])[::-1])


@pytest.mark.parametrize(("k", "n"), [(1, 5), (2, 4), (3, 67), (30, 40)])
def test_the_null_is_a_uniform_ranking(k, n):
    null = significance.null_distribution(k, n, 40_000, seed=0)
    assert null.mean() == pytest.approx(expected_average_precision(k, n), abs=5 * float(null.std()) / 200)
    if n < 6:
        values = [np.mean(np.arange(1, k + 1) / (np.array(s) + 1)) for s in itertools.combinations(range(n), k)]
        assert set(np.round(null.astype(float), 5)) == set(np.round(values, 5))


def test_nulls_depend_on_seed_and_configuration_only(scored):
    first = mean_average_precision(scored, ["pert"], null_size=300, seed=4)
    more = pd.concat([scored.assign(pert="extra", n_total_pairs=25), scored]).sample(frac=1, random_state=0)
    again = mean_average_precision(more, ["pert"], null_size=300, seed=4)
    again = again[again["pert"] != "extra"]
    np.testing.assert_array_equal(first["p_value"], again["p_value"])
    assert (mean_average_precision(scored, ["pert"], null_size=300, seed=5)["p_value"] != first["p_value"]).any()
    with pytest.raises(ValueError, match="null_size=0: give an integer of at least 1"):
        mean_average_precision(scored, ["pert"], null_size=0)
    with pytest.raises(ValueError, match="p_convention"):
        mean_average_precision(scored, ["pert"], p_convention="exactly")
