"""Score cards: what signal, noise, collapse and cross-fitting do to them, and which tables are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import score

QUICK = {"null_size": 200, "shuffles": 3, "bootstrap": 200}
FEATURES = [f"f{i}" for i in range(24)]


def test_signal_is_found_and_noise_is_chance(make_screen):
    tasks = ["replicate", "sister", "compound_gene", "crispr_orf"]
    strong = score(make_screen(0, signal=3.0), tasks=tasks, **{**QUICK, "null_size": 500})
    noise = score(make_screen(1, signal=0.0), tasks=tasks, **QUICK)
    for task in tasks:
        metric = "mean_average_precision" if task == "replicate" else "mean_average_precision_ungated"
        row = row_of(strong, task, metric)
        assert row["value"] > row["chance"] + 0.25
        assert row["ci_low"] > row["chance"]
        row = row_of(noise, task, metric)
        assert row["ci_low"] - 0.05 < row["chance"] < row["ci_high"] + 0.05
    assert strong.value("replicate", "fraction_retrieved") > 0.8
    assert noise.value("replicate", "fraction_retrieved") < 0.1
    assert not strong.alarms


def test_pairs_keep_the_sign_and_tell_a_target_that_is_hit_from_one_that_is_not(make_screen, tmp_path):
    """As BI-2536 should find PLK1 and miss BRD4: two annotated targets, one effect; and an opposite of its gene."""
    table = make_screen(0, signal=0.3)
    rng = np.random.default_rng(0)
    gene = dict(zip([f"GENE{i}" for i in range(8)], 6 * rng.standard_normal((8, 24)), strict=True))
    for name, effect in gene.items():
        reagents = (table[schema.GENE] == name).to_numpy()
        table.loc[reagents, FEATURES] += effect
    is_drug = (table[schema.PERTURBATION] == "compound-GENE0-0").to_numpy()
    table.loc[is_drug, schema.TARGETS] = "GENE0|GENE5"
    opposite = (table[schema.PERTURBATION] == "compound-GENE3-1").to_numpy()
    table.loc[opposite, FEATURES] -= 2 * gene["GENE3"]
    table.loc[opposite, schema.TARGETS] = "GENE3"
    card = score(table, tasks=["compound_gene"], **QUICK)
    pairs = card.pairs[card.pairs["subset"] == "compound_U2OS_24-crispr_U2OS_96"]
    assert not pairs.duplicated([schema.PERTURBATION, "Metadata_target"]).any()
    row = pairs.set_index([schema.PERTURBATION, "Metadata_target"])
    hit, missed = row.loc[("compound-GENE0-0", "GENE0")], row.loc[("compound-GENE0-0", "GENE5")]
    assert hit["average_precision"] == 1
    assert hit["cosine"] > 0.8
    assert missed["average_precision"] < 0.5
    opposed = row.loc[("compound-GENE3-1", "GENE3")]
    assert opposed["average_precision"] == 1
    assert opposed["cosine"] < -0.8
    assert opposed["sign"] == "opposes"
    assert (pairs["n_reagents"] == 2).all()
    assert pairs["retrieved"].all()
    card.write(tmp_path)
    written = pd.read_csv(tmp_path / "compound_gene_pairs.csv")
    assert len(written) == len(card.pairs)
    crispr = written[written["subset"] == "compound_U2OS_24-crispr_U2OS_96"]
    genes = card.tables["compound_gene_ungated"].query("subset == 'compound_U2OS_24-crispr_U2OS_96'")
    by_hand = crispr.groupby("Metadata_target")["average_precision"].mean()
    np.testing.assert_allclose(
        by_hand, genes.set_index(schema.GENE)["mean_average_precision_from_compound"].loc[by_hand.index]
    )


def row_of(card, task: str, metric: str) -> pd.Series:
    m = card.metrics
    return m[(m["task"] == task) & (m["subset"] == "all") & (m["metric"] == metric)].iloc[0]


def test_columns_of_the_files(make_screen, tmp_path):
    card = score(make_screen(0, signal=3.0), **QUICK)
    card.write(tmp_path)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics.columns.tolist() == [
        "task",
        "subset",
        "metric",
        "value",
        "ci_low",
        "ci_high",
        "n",
        "chance",
        "p_convention",
    ]
    shared = {"mean_average_precision", "p_value", "corrected_p_value", "n_queries", "subset"}
    keys = {
        "replicate": {schema.PERTURBATION, schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT},
        "sister": {"Metadata_target", schema.MODALITY},
        "compound_gene": {schema.GENE, "Metadata_modality_1", "Metadata_modality_2", "Metadata_timepoint_h_1", "Metadata_timepoint_h_2"},
    }  # fmt: skip
    for task, columns in keys.items():
        table = pd.read_csv(tmp_path / f"{task}.csv")
        assert shared | columns <= set(table.columns)
        mean = metrics.query("task == @task and subset == 'all' and metric == 'mean_average_precision'")["value"].iloc[
            0
        ]
        assert table["mean_average_precision"].mean() == pytest.approx(mean, rel=1e-8)
    again = tmp_path / "again"
    score(make_screen(0, signal=3.0), **QUICK).write(again)
    for path in tmp_path.glob("*.csv"):
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_order_scale_and_plate_names_change_nothing(make_screen):
    table = make_screen(2, signal=1.0)
    table[schema.CELL_COUNT] = np.random.default_rng(1).integers(50, 90, len(table))
    quick = {**QUICK, "tasks": ["replicate", "sister", "compound_gene", "batch_effects"]}
    want = score(table, **quick).metrics
    rng = np.random.default_rng(0)
    moved = table.sample(frac=1, random_state=1)
    moved[FEATURES] *= 12.5
    names = dict(zip(sorted(table[schema.PLATE].unique()), rng.permutation([f"Q{i}" for i in range(9)]), strict=True))
    moved[schema.PLATE] = moved[schema.PLATE].map(names)
    got = score(moved, **quick).metrics
    numbers = ["value", "ci_low", "ci_high", "chance"]
    assert got.drop(columns=numbers).equals(want.drop(columns=numbers))
    np.testing.assert_allclose(got[numbers], want[numbers], atol=1e-9)


def test_one_thread_and_two_give_the_same_scores(make_screen):
    from threadpoolctl import threadpool_limits

    table = make_screen(2, signal=1.0)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(score(table, **QUICK).metrics)
    one, two = found
    assert one.drop(columns=["value", "ci_low", "ci_high"]).equals(two.drop(columns=["value", "ci_low", "ci_high"]))
    np.testing.assert_allclose(
        one[["value", "ci_low", "ci_high"]], two[["value", "ci_low", "ci_high"]], rtol=0, atol=1e-12
    )


def test_queries_may_be_limited_to_some_wells(make_screen):
    """Held-out wells ask; the others stay to be found. Consensus profiles hold the asking wells only."""
    table = make_screen(3, signal=2.0)
    asking = table[schema.PLATE].isin(["compound2", "crispr2", "orf2"])
    card = score(table, queries=asking, **QUICK)
    assert set(card.queries["replicate"][schema.PLATE]) == {"compound2", "crispr2", "orf2"}
    assert (card.queries["replicate"]["n_pos_pairs"] == 2).all()
    wells = card.queries["replicate"].set_index([schema.PLATE, schema.WELL])["average_precision"]
    everyone = score(table, tasks=["replicate"], **QUICK).queries["replicate"]
    same = everyone.set_index([schema.PLATE, schema.WELL])["average_precision"].loc[wells.index]
    np.testing.assert_array_equal(wells, same)


def test_folds_are_averaged(make_screen):
    """Two folds with half the controls each: AP is the mean of the folds' own."""
    table = make_screen(4)
    position = table[schema.WELL].map(lambda w: schema.well_position(w)[1])
    negcon = table[schema.CONTROL_TYPE] == schema.NEGCON
    folds = [table[~negcon | (position % 2 == k)] for k in (0, 1)]
    both = score(folds, tasks=["replicate"], **QUICK).tables["replicate"].set_index("row")
    each = [score(fold, tasks=["replicate"], **QUICK).tables["replicate"].set_index("row") for fold in folds]
    mean = sum(t["mean_average_precision"] for t in each) / 2
    pd.testing.assert_series_equal(both["mean_average_precision"], mean)
    assert (both["n_queries"] == each[0]["n_queries"]).all()


@pytest.mark.parametrize("spread", [0.0, 1e-9])
def test_a_collapsed_encoder_raises_the_alarm(make_screen, spread):
    table = make_screen(5)
    table[FEATURES] = 1.0 + spread * table[FEATURES]
    card = score(table, tasks=["replicate"], **QUICK)
    assert any(alarm.startswith("collapse") for alarm in card.alarms)
    if not spread:
        assert card.value("replicate") == pytest.approx(card.metrics["chance"].iloc[0])
        assert any(alarm.startswith("ties") for alarm in card.alarms)
    with pytest.raises(ValueError, match="strict=true"):
        score(table, tasks=["replicate"], strict=True, **QUICK)


def test_one_direction_after_centring_is_collapse(make_screen):
    table = make_screen(5)
    treated = table[schema.CONTROL_TYPE] != schema.NEGCON
    table[FEATURES] = 0.01 * table[FEATURES]
    table.loc[treated, FEATURES] += 5.0
    assert any("mean cosine" in alarm for alarm in score(table, tasks=["replicate"], **QUICK).alarms)


def drop(column: str):
    return lambda table: table.drop(columns=column)


def lose_controls(table):
    return table[~((table[schema.PLATE] == "crispr1") & (table[schema.CONTROL_TYPE] == schema.NEGCON))]


def spoil(value):
    def spoiled(table):
        table.loc[30, "f3"] = value
        return table

    return spoiled


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop(schema.PERTURBATION), "needs the column Metadata_perturbation"),
        (drop(schema.CONTROL_TYPE), "needs the column Metadata_control_type"),
        (lambda t: t.replace({schema.MODALITY: {"crispr": "Compound"}}), "'Compound' .plate crispr0, well A01. is unknown: use compound"),
        (lose_controls, "plate crispr1 of set crispr_U2OS_96 has no negcon wells"),
        (spoil(np.nan), r"NaN, the first are compound0 B07"),
        (spoil(np.inf), r"infinite values, the first are compound0 B07"),
        (lambda t: pd.concat([t, t.iloc[:5]], ignore_index=True), "5 rows repeat a plate and well, the first is compound0 A01"),
        (lambda t: t.iloc[:0], "no well is left"),
        (lambda t: t.assign(f3="text"), "neither numeric nor named Metadata_"),
        (lambda t: t.groupby([schema.PERTURBATION, schema.CONTROL_TYPE]).head(1), "no negcon wells|there are no replicates"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_a_reason(make_screen, change, words):
    with pytest.raises(ValueError, match=words):
        score(change(make_screen(6)), **QUICK)


def test_unknown_tasks_are_refused(make_screen):
    with pytest.raises(ValueError, match="'sisters'"):
        score(make_screen(6), tasks=["sisters"])
    assert set(score(make_screen(6), tasks="replicate", **QUICK).metrics["task"]) == {"replicate"}


def test_spaces_around_targets_do_not_count(make_screen):
    table = make_screen(6)
    spaced = table.assign(**{schema.TARGETS: table[schema.TARGETS].str.replace("|", " | ") + " |"})
    pd.testing.assert_frame_equal(score(spaced, **QUICK).metrics, score(table, **QUICK).metrics)


def test_every_task_has_the_control_of_cell_count_alone(make_screen):
    """Genes that kill: every profile of a gene has the count of its gene, so counts alone find it across modalities."""
    table = make_screen(6)
    genes = table[schema.GENE].replace("", "GENE9").str.removeprefix("GENE").astype(int)
    table[schema.CELL_COUNT] = 1000 - 100 * genes + np.random.default_rng(0).integers(0, 9, len(table))
    tasks = ["replicate", "sister", "compound_gene", "crispr_orf"]
    card = score(table, tasks=tasks, **QUICK)
    alone = card.metrics[card.metrics["metric"] == "cell_count_alone"]
    assert set(alone["task"]) == set(tasks)
    assert (alone.loc[alone["task"] == "crispr_orf", "value"] == 1).all()
    assert (alone["value"] > alone["chance"] + 0.2).all()


def test_a_single_replicate_is_left_out_and_counted(make_screen):
    table = make_screen(7)
    once = (table[schema.PERTURBATION] == "compound-GENE0-0") & (table[schema.PLATE] != "compound0")
    card = score(table[~once], tasks=["replicate"], **QUICK)
    assert "compound-GENE0-0" not in set(card.tables["replicate"][schema.PERTURBATION])
    assert any("1 of 24 perturbations" in note for note in card.notes)


def test_features_of_some_plates_only_are_left_out_and_counted(make_screen):
    table = make_screen(8)
    table.loc[table[schema.PLATE] == "orf0", "f5"] = np.nan
    card = score(table, tasks=["replicate"], **QUICK)
    assert any("orf_U2OS_48: 1 features are absent" in note for note in card.notes)


def test_real_plates(cpjump1):
    from morphoclip.data.metadata.annotations import annotate

    paths = sorted((cpjump1 / "profiles").glob("*.csv.gz"))
    table = annotate(pd.concat([pd.read_csv(p) for p in paths], ignore_index=True).copy(), cpjump1 / "metadata")
    card = score(
        table, tasks=["replicate", "sister"], p_convention="published", null_size=500, shuffles=2, bootstrap=200
    )
    assert card.value("replicate") == pytest.approx(0.66456, abs=1e-5)
    assert len(card.tables["replicate"]) == 306
    counts = card.queries["replicate"][["n_pos_pairs", "n_total_pairs"]].astype(int).value_counts()
    assert counts.to_dict() == {(2, 66): 876, (5, 69): 84}
    assert card.value("replicate", "same_position_dmso", "compound_U2OS_24") == pytest.approx(0.304, abs=5e-4)
    assert card.value("sister", "mean_average_precision_ungated") == pytest.approx(0.095, abs=5e-4)
