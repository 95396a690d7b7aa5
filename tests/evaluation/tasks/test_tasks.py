"""The CPJUMP1 protocol against a straightforward pair-by-pair account of it, on the real layout."""

from __future__ import annotations

import hydra
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from morphoclip import configs_dir, schema
from morphoclip.evaluation import Protocol, score
from morphoclip.evaluation.ranking.significance import null_distribution
from morphoclip.evaluation.tasks.completeness import absent_sets
from morphoclip.evaluation.tasks.library import read_task
from morphoclip.evaluation.tasks.protocol import cross_pairs, plate_sets
from morphoclip.evaluation.tasks.questions import ask

NULL = 400


def cpjump1_protocol() -> Protocol:
    return hydra.utils.instantiate(OmegaConf.load(configs_dir() / "protocol" / "cpjump1.yaml"))


def ap_by_pairs(query: int, positives: list[int], negatives: list[int], similarity: np.ndarray) -> float:
    ranked = sorted([(-similarity[query, j], j in positives) for j in positives + negatives])
    hits = [found for _, found in ranked]
    return float(np.mean([sum(hits[: i + 1]) / (i + 1) for i, found in enumerate(hits) if found]))


def published_p(rows: list[tuple[float, int, int]]) -> float:
    """Geometric mean over queries of (1 + #{null > ap}) / (1 + N)."""
    p = []
    for ap, k, n in rows:
        larger = int((null_distribution(k, n, NULL, 0).astype(float) > ap * (1 + 2e-7)).sum())
        p.append((1 + larger) / (1 + NULL))
    return float(np.exp(np.mean(np.log(p))))


def fraction(p: list[float]) -> float:
    ordered = np.sort(p)
    passing = np.flatnonzero(ordered < 0.05 * np.arange(1, len(p) + 1) / len(p))
    return (passing.max() + 1) / len(p) if len(passing) else 0.0


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x / np.sqrt((x**2).sum(axis=1))[:, None]
    return unit @ unit.T


def by_pairs(profiles: pd.DataFrame, labels: list[set[str]], side: list[str], similarity: np.ndarray) -> dict:
    """label -> [(ap, n_pos, n_total)]; positives and negatives lie on the other side, where there are two."""
    rows: dict[str, list] = {}
    two = len(set(side)) == 2
    for i, mine in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i and (side[j] != side[i] or not two)]
        negatives = [j for j in others if not labels[j] & mine]
        for label in mine:
            positives = [j for j in others if label in labels[j]]
            if positives and negatives:
                ap = ap_by_pairs(i, positives, negatives, similarity)
                rows.setdefault(label, []).append((ap, len(positives), len(positives) + len(negatives)))
    return rows


@pytest.fixture(scope="module")
def scored(cpjump1_simulated):
    """The shortest compound, CRISPR and ORF sets of U2OS."""
    table = cpjump1_simulated
    short = {("compound", "24"), ("crispr", "96"), ("orf", "48")}
    keep = [k in short for k in zip(table[schema.MODALITY], table[schema.TIMEPOINT], strict=True)]
    table = table[np.array(keep) & (table[schema.CELL_LINE] == "U2OS")].reset_index(drop=True)
    tasks = ["replicate", "sister", "compound_gene", "crispr_orf"]
    card = score(
        table,
        tasks=tasks,
        protocol=cpjump1_protocol(),
        p_convention="published",
        null_size=NULL,
        shuffles=0,
        bootstrap=50,
    )
    return table, card


def test_every_task_equals_the_pair_by_pair_account(scored):
    table, card = scored
    features = [c for c in table if not c.startswith("Metadata_")]
    consensus = {}
    for modality in ("compound", "crispr", "orf"):
        wells = table[(table[schema.MODALITY] == modality) & (table[schema.CONTROL_TYPE] != "empty")].reset_index(
            drop=True
        )
        similarity = cosines(wells[features].to_numpy())
        negcon = (wells[schema.CONTROL_TYPE] == "negcon").tolist()
        names, plates = wells[schema.PERTURBATION].tolist(), wells[schema.PLATE].tolist()
        rows: dict[str, list] = {}
        for i in range(len(wells)):
            if negcon[i]:
                continue
            positives = [j for j in range(len(wells)) if j != i and names[j] == names[i]]
            negatives = [j for j in range(len(wells)) if negcon[j] and plates[j] == plates[i]]
            ap = ap_by_pairs(i, positives, negatives, similarity)
            rows.setdefault(names[i], []).append((ap, len(positives), len(positives) + len(negatives)))
        compare(card, "replicate", modality, rows, schema.PERTURBATION)
        p = {name: published_p(values) for name, values in rows.items()}
        ordered = sorted(p, key=p.get)
        retrieved = ordered[: round(fraction(list(p.values())) * len(p))]
        medians = wells[wells[schema.PERTURBATION].isin(retrieved)].groupby(schema.PERTURBATION)[features].median()
        info = wells.drop_duplicates(schema.PERTURBATION).set_index(schema.PERTURBATION).loc[medians.index]
        column = schema.TARGETS if modality == "compound" else schema.GENE
        consensus[modality] = (medians, [set(filter(None, cell.split("|"))) for cell in info[column]])

    profiles, labels = consensus["compound"]
    sister = by_pairs(profiles, labels, ["x"] * len(labels), np.abs(cosines(profiles.to_numpy())))
    compare(card, "sister", "compound", sister, "Metadata_target")
    profiles, labels = consensus["crispr"]
    genes = [next(iter(label)) for label in labels]
    paired = [i for i, gene in enumerate(genes) if genes.count(gene) > 1]
    profiles, labels = profiles.iloc[paired], [labels[i] for i in paired]
    compare(
        card,
        "sister",
        "crispr",
        by_pairs(profiles, labels, ["x"] * len(labels), cosines(profiles.to_numpy())),
        "Metadata_target",
    )

    for task, first, second in (
        ("compound_gene", "compound", "crispr"),
        ("compound_gene", "compound", "orf"),
        ("crispr_orf", "crispr", "orf"),
    ):
        (a, a_labels), (b, b_labels) = consensus[first], consensus[second]
        perturbed = set().union(*b_labels)
        keep = [i for i, label in enumerate(a_labels) if label & perturbed]
        both = np.concatenate([a.to_numpy()[keep], b.to_numpy()])
        labels = [a_labels[i] & perturbed for i in keep] + b_labels
        similarity = np.abs(cosines(both)) if task == "compound_gene" else cosines(both)
        rows = by_pairs(both, labels, [first] * len(keep) + [second] * len(b_labels), similarity)
        compare(card, task, f"{first}_U2OS.*-{second}", rows, schema.GENE)


def compare(card, task: str, subset: str, rows: dict, name: str) -> None:
    table = card.tables[task]
    table = table[table["subset"].str.match(subset)].set_index(name)
    assert set(table.index) == set(rows)
    for label, values in rows.items():
        assert table.loc[label, "mean_average_precision"] == pytest.approx(np.mean([v[0] for v in values]), abs=1e-12)
        assert table.loc[label, "p_value"] == pytest.approx(published_p(values), rel=1e-9)
        assert table.loc[label, "n_queries"] == len(values)
    metrics = card.metrics[(card.metrics["task"] == task) & card.metrics["subset"].str.match(subset)]
    value = metrics.loc[metrics["metric"] == "fraction_retrieved", "value"].iloc[0]
    assert value == pytest.approx(fraction([published_p(v) for v in rows.values()]))


def test_the_protocol_knows_12_sets_and_16_pairs(cpjump1, cpjump1_simulated):
    from morphoclip.data.metadata.annotations import read_annotations

    protocol = cpjump1_protocol()
    sets, notes = plate_sets(cpjump1_simulated, protocol)
    assert len(sets) == 12
    assert sum(s.table[schema.PLATE].nunique() for s in sets) == 40
    assert len(cross_pairs(sets, "compound", ("crispr", "orf"))) == 16
    assert any("empty" in note for note in notes)
    annotations = read_annotations(cpjump1 / "metadata")
    assert absent_sets(annotations, cpjump1_simulated, protocol).empty
    some = cpjump1_simulated[cpjump1_simulated[schema.PLATE] != "BR00116995"]
    lacking = absent_sets(annotations, some[some[schema.MODALITY] != "orf"], protocol)
    assert lacking["subset"].tolist() == [
        "compound_U2OS_24",
        "orf_A549_48",
        "orf_A549_96",
        "orf_U2OS_48",
        "orf_U2OS_96",
    ]
    assert "BR00116995" in lacking["why"].iloc[0]


def test_replicate_pair_counts_of_cpjump1(cpjump1):
    """Every well of the plate maps: the joined table of the fixture lacks some."""
    from morphoclip.data.metadata.annotations import read_annotations

    wells = read_annotations(cpjump1 / "metadata")
    here = wells.query(
        "Metadata_modality == 'compound' and Metadata_cell_line == 'U2OS' and Metadata_timepoint_h == '24'"
    )
    x = np.random.default_rng(0).standard_normal((len(here), 2))
    sets, _ = plate_sets(here.assign(f0=x[:, 0], f1=x[:, 1]), cpjump1_protocol())
    queries = ask(read_task("replicate"), sets[0], cpjump1_protocol()).average_precision()
    counts = queries[["n_pos_pairs", "n_total_pairs"]].astype(int).value_counts()
    assert counts.to_dict() == {(3, 67): 1168, (7, 71): 112}
