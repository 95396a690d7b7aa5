"""Relationship recall: against the formula of EFAAR benchmarking, on profiles by gene."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from morphoclip import schema
from morphoclip.evaluation import Measure, Protocol, score
from morphoclip.evaluation.measures.relationships import relationship_recall, relationships
from morphoclip.evaluation.measures.row import Detail, Note, Row
from morphoclip.evaluation.tasks.protocol import plate_sets

SOURCES = ("CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB")


def recall_by_the_published_formula(x: np.ndarray, genes: list[str], pairs: set[tuple[str, str]]) -> float:
    """Celik et al. 2024: the fraction of annotated pairs whose rank among the cosines of all pairs of distinct genes, as a
    share of their number, is at most .05 (counting equal ones) or at least .95 (not counting them).

    Written from the paper and the documentation of `efaar-benchmarking`, independently of our code; the null here is all
    pairs in both directions, of which the package draws a sample.
    """
    cosine = pd.DataFrame(cosine_similarity(x), index=genes, columns=genes)
    null = np.array([cosine.loc[a, b] for a in genes for b in genes if a != b])
    found = []
    for a, b in pairs:
        if a in genes and b in genes:
            value = cosine.loc[a, b]
            found.append((null <= value + 1e-12).mean() <= 0.05 or (null < value - 1e-12).mean() >= 0.95)
    return float(np.mean(found))


def test_recall_equals_the_published_formula():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 12))
    x[1::2] += np.where(rng.random((20, 1)) < 0.5, 1.5, -1.5) * x[::2]  # neighbours are similar or opposite
    genes = [f"G{i}" for i in range(40)]
    pairs = {(f"G{i}", f"G{i + 1}") for i in range(0, 40, 2)} | {("G0", "G9"), ("G5", "unknown")}
    pairs |= {(f"G{i}", f"G{i + 3}") for i in range(0, 36, 4)}
    pairs = {(min(p), max(p)) for p in pairs}
    table = relationship_recall(x, genes, {"source": pairs}).iloc[0]
    want = recall_by_the_published_formula(x, genes, pairs)
    assert 0.3 < want < 0.9
    assert table["recall"] == pytest.approx(want)
    assert table["n_pairs"] == len(pairs) - 1
    assert table["n_genes"] == 40


def crispr_screen(seed: int = 0) -> pd.DataFrame:
    """Two plates; 24 genes × guides in unequal numbers of wells; non-targeting guides are the controls."""
    rng = np.random.default_rng(seed)
    effect = rng.standard_normal((24, 10))
    effect[1::2] = effect[::2] + 0.2 * rng.standard_normal((12, 10))
    rows, values = [], []
    for plate in range(2):
        wells = [(g, k) for g in range(24) for k in range(3) for _ in range(1 + (g + k) % 2)] + [(-1, 0)] * 12
        for place, (g, k) in enumerate(wells):
            name, gene = ("NT", "") if g < 0 else (f"G{g}_guide_{k}", f"G{g}")
            rows.append(
                (f"p{plate}", schema.well_name(place // 24, place % 24), name, gene, schema.NEGCON if g < 0 else "")
            )
            values.append((effect[g] if g >= 0 else 0) + rng.standard_normal(10))
    columns = [schema.PLATE, schema.WELL, schema.PERTURBATION, schema.GENE, schema.CONTROL_TYPE]
    meta = pd.DataFrame(rows, columns=columns).assign(
        **{schema.MODALITY: "crispr", schema.CELL_LINE: "HUVEC", schema.TIMEPOINT: "96"}
    )
    return pd.concat([meta, pd.DataFrame(values, columns=[f"f{i}" for i in range(10)])], axis=1)


def write_pairs(folder, pairs: set[tuple[str, str]]) -> None:
    for source in SOURCES:
        pd.DataFrame(sorted(pairs), columns=["entity1", "entity2"]).to_csv(folder / f"{source}.txt", index=False)


def test_a_genes_profile_is_the_mean_of_all_its_wells(tmp_path):
    table = crispr_screen()
    pairs = {(f"G{i}", f"G{i + 1}") for i in range(0, 24, 2)}
    write_pairs(tmp_path, pairs)
    features = [f"f{i}" for i in range(10)]
    means = table[table[schema.GENE] != ""].groupby(schema.GENE)[features].mean()
    want = recall_by_the_published_formula(means.to_numpy(), means.index.tolist(), pairs)
    found = list(relationships(plate_sets(table, Protocol())[0], Protocol(), relationships_folder=tmp_path))
    rows = {row.metric: row for row in found if isinstance(row, Row)}
    assert want > 0.5
    assert rows["recall_CORUM"].value == pytest.approx(want)
    assert rows["recall_mean"].value == pytest.approx(want)
    assert rows["recall_mean"].n == 5 * len(pairs)
    assert rows["recall_CORUM"].chance == 0.1
    detail = next(f.table for f in found if isinstance(f, Detail))
    assert detail["n_genes"].tolist() == [24] * 5
    write_pairs(tmp_path, {("G0", "G1")})
    found = list(relationships(plate_sets(table, Protocol())[0], Protocol(), relationships_folder=tmp_path))
    assert any("only 2 genes of CORUM" in f.text for f in found if isinstance(f, Note))


def test_noise_is_at_chance_and_the_task_in_the_metrics_with_real_relationships(cpjump1):
    """Genes with real names: noise has a recall of .10, and only pairs with two profiles count."""
    from morphoclip.evaluation.measures.relationships import read_relationships

    folder = cpjump1.parent / "relationships"
    pairs = read_relationships(folder)["CORUM"]
    genes = sorted({gene for pair in sorted(pairs)[:400] for gene in pair})
    rng = np.random.default_rng(0)
    noise = relationship_recall(rng.standard_normal((len(genes), 20)), genes, {"CORUM": pairs})
    assert noise["recall"].iloc[0] == pytest.approx(0.1, abs=0.03)
    table = crispr_screen()
    renamed = dict(zip(sorted(set(table[schema.GENE]) - {""}), genes, strict=False))
    table[schema.GENE] = table[schema.GENE].map(renamed).fillna("")
    function = "morphoclip.evaluation.measures.relationships.relationships"
    measure = Measure(function, {"relationships_folder": folder}, "relationships")
    card = score(table, tasks=[measure], null_size=50, shuffles=0, bootstrap=50)
    found = card.details["relationships"].set_index("source")
    both = {pair for pair in pairs if set(pair) <= set(renamed.values())}
    assert found.loc["CORUM", "n_pairs"] == len(both) > 0
    value = card.value("relationships", "recall_CORUM", "crispr_HUVEC_96")
    assert value == pytest.approx(found.loc["CORUM", "recall"])
