"""Scores of Kim et al. and peers, each on a case whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol, score
from morphoclip.evaluation.measures.batch_effects import (
    batch_scores,
    cell_count_correlation,
    graph_connectivity,
    lisi,
)
from morphoclip.evaluation.measures.clustering import cluster_agreement, families_of_best, heat_map
from morphoclip.evaluation.measures.neighbours import (
    nearest_neighbour_accuracy,
    precision_at_k,
    threshold_grid_precision,
)
from morphoclip.evaluation.measures.probes import mechanism_probe
from morphoclip.evaluation.measures.relationships import read_relationships, relationship_recall
from morphoclip.evaluation.measures.retrieval import recall_at_k


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_neighbours_of_the_own_batch_do_not_count():
    # a1 is nearest to its own batch's b, then to a2 of the other batch: only with batches apart is it right
    x = at_angles(0, 1, 5, 60)
    labels, batch = [{"a"}, {"b"}, {"a"}, {"b"}], ["1", "1", "2", "2"]
    right_of = {"a1": 1, "b1": 0, "a2": 0, "b2": 1}  # a2's nearest in batch 1 is b1
    accuracy, chance, n = nearest_neighbour_accuracy(x, labels, batch)
    assert (accuracy, chance, n) == (np.mean(list(right_of.values())), 0.5, 4)
    assert nearest_neighbour_accuracy(x, [{"q"}, {"r"}, {"s"}, {"t"}], batch)[2] == 0


def test_tied_neighbours_count_by_their_share():
    x = at_angles(0, 30, 30)
    accuracy, _, n = nearest_neighbour_accuracy(x, [{"a"}, {"a"}, {"b"}], ["1", "2", "2"])
    assert n == 2
    assert accuracy == pytest.approx((0.5 + 1.0) / 2)


def test_precision_and_f1_at_k():
    x = at_angles(0, 2, 4, 50, 52)
    labels = [{"a"}, {"a"}, {"b"}, {"b", "c"}, {"c"}]
    precision, f1, chance, n = precision_at_k(x, labels, 2)
    hits, positives = np.array([1, 1, 0, 2, 1]), np.array([1, 1, 1, 2, 1])
    assert n == 5
    assert precision == pytest.approx((hits / 2).mean())
    assert f1 == pytest.approx((2 * hits / (2 + positives)).mean())
    assert chance == pytest.approx(positives.mean() / 4)
    with pytest.raises(ValueError, match="5 neighbours"):
        precision_at_k(x, labels, 5)


def test_clusters_that_are_families_agree_fully():
    x = at_angles(0, 2, 50, 52, 100, 102)
    assert cluster_agreement(x, list("aabbcc")) == pytest.approx(1)
    assert cluster_agreement(x, list("abcabc")) < 0.1
    similarity, order = heat_map(x)
    assert {frozenset(order[i : i + 2].tolist()) for i in (0, 2, 4)} == {frozenset(p) for p in ({0, 1}, {2, 3}, {4, 5})}
    np.testing.assert_allclose(np.diagonal(similarity), 1)
    with pytest.raises(ValueError, match="1 families"):
        cluster_agreement(x, ["a"] * 6)
    assert families_of_best([0.1, 0.9, 0.5, 0.7], ["a", "b", "a", "c"], top=2) == ["b", "c"]


def test_batch_metrics_tell_separate_batches_from_mixed_ones():
    batches = np.repeat(["p", "q", "r"], 40)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((120, 10))
    shift = np.repeat(rng.standard_normal((3, 10)), 40, axis=0)
    shifted, mixed = (batch_scores(x, batches).set_index("metric") for x in (noise + shift, noise))
    assert shifted.loc["silhouette", "value"] > mixed.loc["silhouette", "value"] + 0.1
    assert shifted.loc["plate_map", "value"] > mixed.loc["plate_map", "value"] + 0.2
    assert mixed.loc["plate_map", "value"] == pytest.approx(mixed.loc["plate_map", "chance"], abs=0.05)
    assert shifted.loc["lisi_k15", "value"] < mixed.loc["lisi_k15", "value"] - 0.5
    assert shifted.loc["graph_connectivity_k5", "value"] > mixed.loc["graph_connectivity_k5", "value"]
    with pytest.raises(ValueError, match="at least two batches"):
        batch_scores(np.ones((3, 2)), ["a"] * 3)


def test_connectivity_by_hand():
    batches = np.array(["a", "a", "b", "b"])
    assert graph_connectivity(np.array([[1], [0], [3], [2]]), batches) == 1
    assert graph_connectivity(np.array([[2], [3], [0], [1]]), batches) == 0.5


def test_lisi_of_equally_far_neighbours_counts_them():
    nearest = np.array([[1, 2], [0, 3], [3, 0], [2, 1]])
    batches = np.array(["a", "a", "b", "b"])
    assert lisi(nearest, np.ones((4, 2)), batches) == pytest.approx(2)  # each sees one of each
    assert lisi(nearest[:, :1], np.ones((4, 1)), batches) == pytest.approx(1)


def test_lisi_equals_harmonypys():
    from harmonypy.lisi import compute_lisi
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(0)
    batches = rng.integers(0, 3, 200)
    x = rng.standard_normal((200, 5)) + batches[:, None]
    oracle = compute_lisi(x, pd.DataFrame({"batch": batches}), ["batch"], perplexity=10)
    distances, nearest = NearestNeighbors(n_neighbors=30).fit(x).kneighbors()
    assert lisi(nearest, distances, batches) == pytest.approx(oracle.mean(), abs=1e-5)
    equal = lisi(nearest, np.ones_like(distances), batches)
    assert abs(equal - oracle.mean()) > 0.01  # nearer ones do count more


def test_precision_over_a_grid_of_distances():
    """Two pairs, one closer than the other; at some distance each row sees its own first, at .50 all see all."""
    x = np.array([[1, 0, 0, -1.0], [1, 0, 0.1, -1.1], [0, 1, -1, 0], [0.4, 1, -1, -0.4]])
    area, chance, n = threshold_grid_precision(x, [{"a"}, {"a"}, {"b"}, {"b"}])
    correlation = np.corrcoef(x)
    assert 1 - correlation[0, 1] < 0.02
    assert 0.02 < 1 - correlation[2, 3] < 0.2
    curve = []
    for d in np.arange(1, 101, 3) / 100:
        near = (1 - correlation < d) & ~np.eye(4, dtype=bool)
        right = np.array([near[i, j] for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))])
        found = near.sum(axis=1)
        curve.append((np.mean([r / f if f else 0 for r, f in zip(right, found, strict=True)]), right.mean()))
    precision, recall = np.array(curve).T
    assert area == pytest.approx(np.sum(np.diff(recall) * (precision[1:] + precision[:-1]) / 2))
    assert area == pytest.approx(0.375)  # from precision 1/2 at recall 1/2 to 1 at 1
    assert chance == pytest.approx(area / 3)  # one of three others is right
    assert n == 4
    rng = np.random.default_rng(0)
    labels = [{str(i % 20)} for i in range(200)]
    area, chance, n = threshold_grid_precision(rng.standard_normal((200, 30)), labels)
    assert area == pytest.approx(chance, abs=0.015)
    assert np.isnan(threshold_grid_precision(x, [{"a"}, {"b"}, {"c"}, {"d"}])[0])


def test_a_component_that_is_cell_count_is_found():
    rng = np.random.default_rng(0)
    counts = rng.uniform(50, 200, 80)
    x = rng.standard_normal((80, 6))
    x[:, 0] += counts  # the first component
    found = cell_count_correlation(x, counts, components=3)
    assert found[0] > 0.99
    assert (found[1:] < 0.4).all()


def test_relationship_recall_counts_both_tails():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 20))
    x[1], x[3] = x[0] + 0.01, -x[2]  # a near-identical and an opposite pair
    genes = [f"g{i}" for i in range(60)]
    annotated = {"both": {("g0", "g1"), ("g2", "g3")}, "none": {("zz", "yy")}}
    annotated["all"] = {(a, b) for i, a in enumerate(genes) for b in genes[i + 1 :]}
    table = relationship_recall(x, genes, annotated).set_index("source")
    assert table.loc["both", ["recall", "low_tail", "high_tail", "n_pairs"]].tolist() == [1, 0.5, 0.5, 2]
    assert table.loc["all", "recall"] == pytest.approx(0.10, abs=0.002)
    assert np.isnan(table.loc["none", "recall"])
    with pytest.raises(ValueError, match="one profile per gene"):
        relationship_recall(x[:2], ["g", "g"], annotated)


def test_relationship_files_are_read_once_a_pair(cpjump1, tmp_path):
    pairs = read_relationships(cpjump1.parent / "relationships")
    assert set(pairs) == {"CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB"}
    assert ("GTF3C3", "SUB1") in pairs["CORUM"]
    assert all(a < b for a, b in pairs["CORUM"])
    with pytest.raises(FileNotFoundError, match="CORUM"):
        read_relationships(tmp_path)


def test_recall_at_k_with_ties_and_several_positives():
    candidates = at_angles(0, 10, 10, 90)
    queries = at_angles(0, 10)
    table = recall_at_k(queries, candidates, [[0], [1]], ks=(1, 2, 4)).set_index("k")
    assert table["recall"].tolist() == pytest.approx([0.75, 1, 1])  # the second query ties with a wrong candidate
    assert table["chance"].tolist() == pytest.approx([0.25, 0.5, 1])
    assert "only 4 candidates" in table["note"].iloc[0]
    several = recall_at_k(queries[:1], candidates, [[1, 3]], ks=(1, 2, 3))
    assert several["recall"].tolist() == pytest.approx([0, 0.5, 1])
    assert several["chance"].tolist() == pytest.approx([0.5, 1 - 1 / 6, 1])
    with pytest.raises(ValueError, match="repeated"):
        recall_at_k(queries, candidates, [[0], [1]], names=["a", "a", "b", "c"])
    with pytest.raises(ValueError, match="no correct candidate"):
        recall_at_k(queries, candidates, [[0], []])


def test_probes_find_what_is_linear_and_no_more():
    rng = np.random.default_rng(0)
    mechanisms = np.repeat(["kinase", "tubulin", "hdac"], 30)
    centres = dict(zip(["kinase", "tubulin", "hdac"], 3 * np.eye(3, 8), strict=True))
    x = rng.standard_normal((90, 8)) + np.stack([centres[m] for m in mechanisms])
    compounds = [f"c{i // 3}" for i in range(90)]
    told = mechanism_probe(x, mechanisms, compounds)
    assert told["accuracy"] > 0.8
    assert told["chance"] == pytest.approx(1 / 3)
    assert mechanism_probe(rng.standard_normal((90, 8)), mechanisms, compounds)["accuracy"] < 0.5
    with pytest.raises(ValueError, match="fewer than two mechanisms"):
        mechanism_probe(x[:6], ["a", "b"] * 3, compounds[:6])


def test_the_battery_is_in_the_metrics(make_screen):
    tasks = ["neighbours", "clustering", "batch_effects", "retrieval"]
    table = make_screen(0, signal=3.0)
    table[schema.CELL_COUNT] = np.random.default_rng(0).integers(50, 90, len(table)).astype(str)
    card = score(
        table,
        tasks=[*tasks, "sister"],
        null_size=50,
        shuffles=0,
        bootstrap=50,
        protocol=Protocol(batch_column=schema.PLATE),
    )
    m = card.metrics.set_index(["task", "subset", "metric"])["value"]
    assert set(tasks) <= set(card.metrics["task"])
    assert m["neighbours", "compound_U2OS_24", "nsb"] > 0.8
    assert m["retrieval", "compound_U2OS_24-crispr_U2OS_96", "compound_to_gene_recall_at_1_of_8"] > 0.6
    assert m["clustering", "crispr_U2OS_96", "ami_of_genes"] > 0.3
    alone = m["replicate", "compound_U2OS_24", "cell_count_alone"]
    chance = card.metrics.query("metric == 'cell_count_alone' and task == 'replicate'")["chance"].iloc[0]
    assert alone == pytest.approx(chance, abs=0.12)


def test_a_step_that_leaves_a_well_without_direction_is_named(make_screen):
    from morphoclip.evaluation.measures.batch_effects import batch_scores_by_step

    table = make_screen(0).query("Metadata_modality == 'orf'").reset_index(drop=True)

    def stages(wells):
        features = [c for c in wells if c.startswith("f")]
        yield "center", wells.assign(**{f: wells[f].where(wells.index != wells.index[3], 0.0) for f in features})

    with pytest.raises(ValueError, match=f"{table[schema.PLATE][3]} {table[schema.WELL][3]} after center"):
        batch_scores_by_step(table, Protocol(), stages)
