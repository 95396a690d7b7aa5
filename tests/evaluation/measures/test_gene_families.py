"""Gene families: each score against scikit-learn, scipy or a case whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_mutual_info_score, average_precision_score

from morphoclip import schema
from morphoclip.evaluation import Protocol, score
from morphoclip.evaluation.measures.clustering import agreement_of_clusters
from morphoclip.evaluation.measures.families import GENE_GROUP, read_families
from morphoclip.evaluation.measures.gene_families import gene_families
from morphoclip.evaluation.measures.neighbours import f1_over_k
from morphoclip.evaluation.measures.row import Detail, Note, Row
from morphoclip.evaluation.tasks.protocol import plate_sets

FEATURES = [f"f{i}" for i in range(30)]


def orf_screen(families: int = 6, members: int = 5, signal: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Two batches × two plates of ORFs; genes of a family share an effect; eight controls a plate."""
    rng = np.random.default_rng(seed)
    shared = {f"F{i}": rng.standard_normal(30) for i in range(families)}
    rows, values = [], []
    genes = [(f"{family}G{j}", family) for family in shared for j in range(members)] + [("LONE", "")]
    own = {gene: 0.5 * rng.standard_normal(30) for gene, _ in genes}
    for plate in range(4):
        wells = [*genes, *[("", "")] * 8]
        for place, (gene, family) in enumerate(wells):
            rows.append(
                (
                    f"b{plate // 2}",
                    f"s{plate % 2}",
                    f"p{plate}",
                    schema.well_name(place // 24, place % 24),
                    f"orf-{gene}" if gene else "NT",
                    gene,
                    family,
                    "" if gene else schema.NEGCON,
                )
            )
            effect = signal * shared[family] + own[gene] if family else 0
            values.append(effect + 0.5 * rng.standard_normal(30))
    columns = [schema.BATCH, schema.SOURCE, schema.PLATE, schema.WELL, schema.PERTURBATION, schema.GENE, GENE_GROUP, schema.CONTROL_TYPE]  # fmt: skip
    meta = pd.DataFrame(rows, columns=columns).assign(
        **{schema.MODALITY: "orf", schema.CELL_LINE: "U2OS", schema.TIMEPOINT: "48"}
    )
    return pd.concat([meta, pd.DataFrame(values, columns=FEATURES)], axis=1)


def yielded(table: pd.DataFrame, protocol: Protocol | None = None, **options):
    protocol = protocol or Protocol(batch_column=schema.BATCH)
    found = list(gene_families(plate_sets(table, protocol)[0], protocol, **options))
    rows = {row.metric: row for row in found if isinstance(row, Row)}
    return rows, [f.table for f in found if isinstance(f, Detail)], [f.text for f in found if isinstance(f, Note)]


def means(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    treated = table[(table[schema.CONTROL_TYPE] != schema.NEGCON) & (table[GENE_GROUP] != "")]
    grouped = treated.groupby(schema.PERTURBATION)
    return grouped[FEATURES].mean().to_numpy(), grouped[GENE_GROUP].first().to_numpy()


def test_average_precision_equals_scikit_learns_on_correlations():
    table = orf_screen(signal=0.3)
    x, family = means(table)
    correlation = np.corrcoef(x)
    want = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        want.append(average_precision_score(family[others] == family[i], correlation[i, others]))
    rows, details, notes = yielded(table)
    found = rows["mean_average_precision"]
    assert 0.2 < np.mean(want) < 0.95
    assert found.value == pytest.approx(np.mean(want))
    assert found.n == 30
    assert found.ci_low < found.value < found.ci_high
    by_family = pd.Series(want).groupby(family).mean()
    detail = details[0].set_index(GENE_GROUP)
    np.testing.assert_allclose(detail["mean_average_precision"].reindex(by_family.index), by_family)
    assert (detail["n_members"] == 5).all()
    assert any("1 of 31 perturbations, e.g. orf-LONE" in note for note in notes)


def test_f1_combines_mean_precision_and_mean_recall():
    x, family = means(orf_screen(signal=0.3))
    correlation = np.corrcoef(x)
    np.fill_diagonal(correlation, -np.inf)
    nearest = np.argsort(-correlation, axis=1)
    labels = [{f} for f in family]
    found = dict(f1_over_k(x - x.mean(axis=1, keepdims=True), labels, (1, 3, 29, 31)))
    assert sorted(found) == [1, 3, 29]  # there are 29 others
    for k, f1 in found.items():
        hits = (family[nearest[:, :k]] == family[:, None]).sum(axis=1)
        precision, recall = (hits / k).mean(), (hits / 4).mean()
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall))


def test_clusters_are_of_the_rows_of_the_correlation_matrix():
    x, family = means(orf_screen(signal=0.3))
    tree = linkage(np.corrcoef(x), method="complete", metric="euclidean")
    want = adjusted_mutual_info_score(family, fcluster(tree, 6, criterion="maxclust"))
    centred, labels = x - x.mean(axis=1, keepdims=True), [{f} for f in family]
    assert agreement_of_clusters(centred, labels, set(family)) == (pytest.approx(want), 30)
    assert agreement_of_clusters(centred, labels, {"F0"})[1] == 0
    # a gene of two of the families is left out; of a family that is not chosen it is not counted
    labels[0] = {*labels[0], "other"}
    assert agreement_of_clusters(centred, labels, set(family))[1] == 30
    labels[0] = {"F0", "F1"}
    assert agreement_of_clusters(centred, labels, set(family))[1] == 29


def test_families_of_the_right_size_and_the_best_of_them_are_clustered():
    strong = orf_screen(signal=3.0)
    rows, details, _ = yielded(strong, top=3)
    assert rows["ami"].value == pytest.approx(1)
    assert rows["ami"].n == 30
    assert rows["ami_top3"].n == 15
    assert details[0]["in_top3"].sum() == 3
    assert rows["ami_top3"].chance < 0.5
    rows, _, notes = yielded(strong, sizes=(6, 10))
    assert "ami" not in rows
    assert any("no family has 6 to 10 members" in note for note in notes)


def test_the_nearest_well_of_another_batch_and_perturbation_shares_the_family():
    rows, _, _ = yielded(orf_screen(signal=3.0))
    assert rows["nsbp"].value == 1
    assert rows["nsbp"].n == 4 * 30
    chance = (4 * 2) / (29 * 2)  # four sisters among 29 other perturbations, two wells each in the other batch
    assert rows["nsbp"].chance == pytest.approx(chance)
    both, _, _ = yielded(orf_screen(), Protocol(batch_columns=[schema.BATCH, schema.SOURCE]))
    assert {"nsbp_batch", "nsbp_source"} <= set(both)
    assert "nsbp" not in both


def test_noise_scores_at_chance():
    rows, _, _ = yielded(orf_screen(families=20, signal=0.0))
    score_, chance = rows["mean_average_precision"], rows["mean_average_precision"].chance
    assert score_.value == pytest.approx(chance, abs=0.06)
    assert rows["ami"].value == pytest.approx(0, abs=0.15)
    assert rows["ami_top20"].value == pytest.approx(rows["ami_top20"].chance, abs=0.15)


def test_families_come_from_a_file_of_any_separator(tmp_path):
    table = orf_screen()
    path = tmp_path / "hgnc_complete_set.txt"
    genes = table.loc[table[GENE_GROUP] != "", [schema.GENE, GENE_GROUP]].drop_duplicates()
    lines = [
        f"HGNC:{i}\t{g}\t{f}|{'Both' if f in ('F0', 'F1') else ''}"
        for i, (g, f) in enumerate(genes.itertuples(index=False, name=None))
    ]
    path.write_text("\n".join(["hgnc_id\tsymbol\tgene_group", *lines, "HGNC:99\tUNUSED\t"]))
    assert read_families(path)["F0G0"] == {"F0", "Both"}
    assert "UNUSED" not in read_families(path)
    rows, details, _ = yielded(table.drop(columns=GENE_GROUP), families=path)
    detail = details[0].set_index(GENE_GROUP)
    assert detail["n_members"].to_dict() == {**{f"F{i}": 5 for i in range(6)}, "Both": 10}
    assert rows["mean_average_precision"].n == 40  # genes of two families are asked for both
    assert rows["ami"].n == 20  # 'Both' has ten members, so those genes are in two of the families of 4 to 10
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("name,class\nA,B\n")
    with pytest.raises(ValueError, match=r"wrong\.csv has the columns \['name', 'class'\].*'symbol'.*'gene_group'"):
        read_families(wrong)
    with pytest.raises(ValueError, match="families=<table with the columns symbol and gene_group"):
        yielded(table.drop(columns=GENE_GROUP))
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_families(tmp_path / "nothing.csv")


def test_the_task_is_in_the_metrics_and_its_table_beside_them(tmp_path):
    card = score(orf_screen(), tasks=["gene_families"], null_size=50, shuffles=0, bootstrap=50)
    assert card.value("gene_families", "mean_average_precision", "orf_U2OS_48") > 0.5
    card.write(tmp_path)
    assert len(pd.read_csv(tmp_path / "gene_families.csv")) == 6
