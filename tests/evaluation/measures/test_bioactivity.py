"""Assays: layouts, matching by molecule, and predictions equal to scikit-learn's."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pandas as pd
import pytest
from scipy.io import mmwrite
from scipy.sparse import coo_array
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from morphoclip import schema
from morphoclip.evaluation import Measure, Protocol, score
from morphoclip.evaluation.measures.assay_network import predict_assays as network
from morphoclip.evaluation.measures.assays import match, read_assays
from morphoclip.evaluation.measures.bioactivity import BIN_NAMES, LABEL_BINS, bioactivity, probe
from morphoclip.evaluation.measures.logistic import fit_logistic, predict_assays
from morphoclip.evaluation.measures.row import Detail, Note, Row
from morphoclip.evaluation.tasks.protocol import plate_sets

SMILES = [
    "CCO", "CCCO", "CCCCO", "CC(=O)O", "CCN", "CCCN", "c1ccccc1", "Cc1ccccc1", "Oc1ccccc1", "Nc1ccccc1", "CCOC(C)=O",
    "CC(C)=O", "CCC(C)=O", "C1CCCCC1", "OC1CCCCC1", "NC1CCCCC1", "CCSC", "CCCl", "CCCCl", "CCBr", "CC#N", "CCC#N",
    "c1ccncc1", "Cc1ccncc1", "c1ccoc1", "c1ccsc1", "CC(C)O", "CC(C)N", "OCCO", "NCCN",
]  # fmt: skip


def problem(n: int = 90, d: int = 12, assays: int = 40, known: float = 0.6, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    y = (x @ rng.standard_normal((d, assays)) + rng.standard_normal((n, assays)) > 0.5).astype(float)
    y[rng.random((n, assays)) > known] = np.nan
    return x, y


@pytest.mark.parametrize("known", [0.9, 0.15])  # solved in large groups, and almost one by one
def test_predictions_equal_scikit_learns(known):
    x, y = problem(known=known)
    y[:, 3] = np.where(np.isfinite(y[:, 3]), 1, np.nan)  # a single class
    test = np.random.default_rng(1).standard_normal((20, 12))
    ours = predict_assays(x, y, test)
    assert np.isnan(ours[:, 3]).all()
    for assay in range(y.shape[1]):
        rows = np.isfinite(y[:, assay])
        if len(np.unique(y[rows, assay])) == 2:
            model = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=10_000)
            theirs = model.fit(x[rows], y[rows, assay]).predict_proba(test)[:, 1]
            np.testing.assert_allclose(ours[:, assay], theirs, atol=2e-5)


def test_regression_of_more_features_than_rows_and_of_separable_classes():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 200)) * 10
    y = (x[:, :1] > 0).astype(float)
    weights = fit_logistic(x, y, np.ones_like(y), c=3.0)
    theirs = LogisticRegression(C=3.0, tol=1e-12, max_iter=100_000).fit(x, y[:, 0])
    np.testing.assert_allclose(weights[:-1, 0], theirs.coef_[0], atol=1e-5)
    assert weights[-1, 0] == pytest.approx(theirs.intercept_[0], rel=3e-3)  # nearly flat


def test_scores_are_means_over_the_splits_that_have_both_classes():
    x, y = problem(n=60, assays=5, known=0.5)
    y[:, 4] = np.nan
    y[:4, 4] = [1, 0, 1, 0]
    fold = np.repeat([0, 1, 2], 20)  # the last assay is measured in the first split only
    found = probe(x, y, fold)
    for assay in range(4):
        aurocs, f1s = [], []
        for test in range(3):
            train = np.isfinite(y[:, assay]) & (fold != test)
            held = np.isfinite(y[:, assay]) & (fold == test)
            model = LogisticRegression(class_weight="balanced", tol=1e-10, max_iter=10_000)
            p = model.fit(x[train], y[train, assay]).predict_proba(x[held])[:, 1]
            aurocs.append(roc_auc_score(y[held, assay], p))
            f1s.append(f1_score(y[held, assay], p > 0.5))
        assert found["auroc"][assay] == pytest.approx(np.mean(aurocs))
        assert found["f1"][assay] == pytest.approx(np.mean(f1s))
        assert found["n_splits"][assay] == 3
    assert found["n_splits"][4] == 0
    assert np.isnan(found["auroc"][4])


def write_folder(folder, labels: np.ndarray, keys: list[str], names: list[str], smiles: list[str] | None = None):
    folder.mkdir()
    rows, columns = np.nonzero(labels)
    text = io.BytesIO()
    mmwrite(text, coo_array((labels[rows, columns].astype(int), (rows, columns)), shape=labels.shape))
    (folder / "label-matrix.mtx.gz").write_bytes(gzip.compress(text.getvalue()))
    pd.DataFrame({"INCHIKEY": keys}).to_csv(folder / "row-compound-index.csv", index_label="INDEX")
    pd.DataFrame({"ASSAY_ID": names}).to_csv(folder / "column-assay-index.csv", index=False)
    if smiles:
        table = pd.DataFrame({"INCHIKEY": keys, "smiles": smiles})
        table.to_csv(folder / "compound_smiles.csv.gz", index_label="INDEX")


def test_three_layouts_say_the_same(tmp_path):
    labels = np.array([[1, -1], [0, 1], [-1, 0]])
    keys = ["AAAAAAAAAAAAAA-N", "BBBBBBBBBBBBBB-N", "CCCCCCCCCCCCCC-N"]
    write_folder(tmp_path / "folder", labels, keys, ["a1", "a1"])
    (tmp_path / "long.tsv").write_text(
        "InChIKey\tassay\tactive\n"
        f"{keys[0]}\ta1\t1\n{keys[0]}\tb\tinactive\n{keys[1]}\tb\t1.0\n{keys[2]}\ta1\t-1\n{keys[2]}\tb\t\n"
    )
    (tmp_path / "wide.csv").write_text(f"inchikey;a1;b\n{keys[0]};1;0\n{keys[1]};;1\n{keys[2]};0;\n")
    want = {(keys[0], 0): 1, (keys[0], 1): 0, (keys[1], 1): 1, (keys[2], 0): 0}
    for name, assays in (("folder", ["a1", "a1.2"]), ("long.tsv", ["a1", "b"]), ("wide.csv", ["a1", "b"])):
        found = read_assays(tmp_path / name)
        assert found.names == assays
        key = found.compounds[schema.INCHIKEY].to_numpy()[found.outcomes["row"]]
        assert dict(zip(zip(key, found.outcomes["assay"], strict=True), found.outcomes["active"], strict=True)) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smiles,a\nCCO,2\n", r"column a: 1 values are no outcomes, the first is '2'"),
        ("smiles,assay,active\nCCO,x,maybe\n", r"column active: 1 values are no outcomes, the first is 'maybe'"),
        ("well,a\nA1,1\n", "give compounds by a column inchikey, smiles, name or perturbation"),
        ("smiles\nCCO\n", "give a row per compound and assay"),
    ],
)
def test_tables_that_are_no_assays_are_refused(tmp_path, text, message):
    (tmp_path / "assays.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_assays(tmp_path / "assays.csv")


def test_files_missing_or_of_other_sizes_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv: there is no such file"):
        read_assays(tmp_path / "nothing.csv")
    write_folder(tmp_path / "folder", np.array([[1, -1]]), ["A-N"], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"1 × 2, but the indices beside it list 1 compounds and 3 assays"):
        read_assays(tmp_path / "folder")
    (tmp_path / "folder" / "row-compound-index.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no row-compound-index\.csv"):
        read_assays(tmp_path / "folder")


def compound_screen(doses: tuple[str, ...] = ("1", "10"), seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Two plates; each molecule at several doses under ids `compound@dose`, and the effect of each molecule; cell counts follow the first."""
    rng = np.random.default_rng(seed)
    effect = rng.standard_normal((len(SMILES), 6))
    rows, values = [], []
    for plate in range(2):
        wells = [(i, dose) for i in range(len(SMILES)) for dose in doses] + [(-1, "")] * 8
        for place, (i, dose) in enumerate(wells):
            name = "DMSO" if i < 0 else f"drug{i}@{dose}"
            smiles = "" if i < 0 else SMILES[i]
            count = 100 if i < 0 else round(100 * np.exp(effect[i, 0]))
            rows.append(
                (
                    f"p{plate}",
                    schema.well_name(place // 24, place % 24),
                    name,
                    smiles,
                    schema.NEGCON if i < 0 else "",
                    count,
                )
            )
            values.append((effect[i] if i >= 0 else 0) + 0.3 * rng.standard_normal(6))
    columns = [schema.PLATE, schema.WELL, schema.PERTURBATION, schema.SMILES, schema.CONTROL_TYPE, schema.CELL_COUNT]
    meta = pd.DataFrame(rows, columns=columns).assign(
        **{schema.MODALITY: "compound", schema.CELL_LINE: "U2OS", schema.TIMEPOINT: "24"}
    )
    return pd.concat([meta, pd.DataFrame(values, columns=[f"f{i}" for i in range(6)])], axis=1), effect


def yielded(table: pd.DataFrame, **options):
    found = list(bioactivity(plate_sets(table, Protocol())[0], Protocol(), **options))
    rows = {row.metric: row for row in found if isinstance(row, Row)}
    return rows, [f.table for f in found if isinstance(f, Detail)], [f.text for f in found if isinstance(f, Note)]


def test_assays_of_the_count_and_of_other_features_beside_their_controls(tmp_path):
    table, effect = compound_screen()
    assays = pd.DataFrame({"smiles": SMILES, "toxicity": effect[:, 0] < 0, "other": effect[:, 5] > 0, "rare": ""})
    assays.loc[:1, "rare"] = [1, 0]
    assays.to_csv(tmp_path / "assays.csv", index=False)
    rows, details, notes = yielded(table, assays=tmp_path / "assays.csv")
    detail = details[0].set_index("assay")
    assert detail["n_labels"].to_dict() == {"toxicity": 30, "other": 30, "rare": 2}
    assert detail.loc["toxicity", "cell_count_alone_auroc"] > 0.99
    assert detail.loc["other", "cell_count_alone_auroc"] < 0.8
    assert (detail.loc[["toxicity", "other"], "auroc"] > 0.85).all()
    assert rows["auroc"].value == pytest.approx(detail.loc[["toxicity", "other"], "auroc"].mean())
    assert rows["auroc"].n == 2
    assert rows["cell_count_alone_assays_with_auroc_above_0.9"].value == 1
    assert rows["auroc_labels_below_50"].n == 2
    assert "structure_alone_auroc" in rows
    assert any("30 of 30 molecules have outcomes, in 3 of 3 assays" in note for note in notes)
    assert any("1 of 3 assays, e.g. rare, have no split with both classes" in note for note in notes)


def test_doses_and_forms_of_a_molecule_are_one_row(tmp_path):
    table, _ = compound_screen()
    (tmp_path / "assays.csv").write_text("smiles,a\nOCC,1\nCCO,1\n[Na+].CC(=O)[O-],0\nCCCO,0\nOCCC,1\n")
    outcomes, molecule = match(read_assays(tmp_path / "assays.csv"), table)
    assert len(set(molecule[table[schema.SMILES] != ""])) == 30
    assert len(outcomes) == 2  # the outcomes of propanol contradict each other
    assert sorted(outcomes["active"]) == [0, 1]
    assert set(outcomes["molecule"]) == {molecule[0], molecule[table.index[table[schema.SMILES] == "CC(=O)O"][0]]}


def test_compounds_meet_by_name_whatever_the_column_is_called(tmp_path):
    table, _ = compound_screen()
    table[schema.NAME] = table[schema.PERTURBATION].str.split("@").str[0].str.upper().replace("DMSO", "")
    profiles = table.drop(columns=schema.SMILES)
    (tmp_path / "assays.csv").write_text("compound,a\ndrug3,1\nDRUG4,0\nelse,1\n")
    outcomes, molecule = match(read_assays(tmp_path / "assays.csv"), profiles)
    assert len(outcomes) == 2
    assert set(outcomes["molecule"]) == {molecule[6], molecule[8]}  # two doses each


def test_bins_are_those_of_the_paper():
    counts = [49, 50, 99, 100, 499, 500, 999, 1000, 2999, 3000]
    found = pd.cut(counts, LABEL_BINS, right=False, labels=BIN_NAMES)
    assert list(found) == [
        "below_50", "50_to_100", "50_to_100", "100_to_500", "100_to_500", "500_to_1000", "500_to_1000", "1000_to_3000",
        "1000_to_3000", "from_3000",
    ]  # fmt: skip


@pytest.mark.slow  # a minute of small steps on a busy machine
def test_a_network_finds_what_is_not_linear():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (500, 3))
    y = (x[:, :1] * x[:, 1:2] > 0).astype(float)
    train, test = x[:300], x[300:]
    said = network(train, y[:300], test, hidden=48, epochs=100, batch_size=32, dropout=0.0)
    assert roc_auc_score(y[300:, 0], predict_assays(train, y[:300], test)[:, 0]) < 0.6
    assert roc_auc_score(y[300:, 0], said[:, 0]) > 0.9


def test_a_network_of_all_assays_leaves_out_what_is_not_measured():
    x, y = problem(n=120, assays=2, known=0.5)
    test, hidden = x[80:], {"hidden": 32, "epochs": 20, "batch_size": 16, "dropout": 0.0}
    said = network(x[:80], y[:80], test, **hidden)
    rows = np.isfinite(y[80:, 0])
    assert roc_auc_score(y[80:, 0][rows], said[rows, 0]) > 0.7
    unmeasured = np.isnan(y[:80]).all(axis=1)
    assert unmeasured.any()
    changed = np.where(unmeasured[:, None], 1e6, x[:80])
    np.testing.assert_array_equal(network(changed, y[:80], test, **hidden), said)


def test_mistakes_are_named(tmp_path):
    table, _ = compound_screen()
    with pytest.raises(ValueError, match="needs assays="):
        yielded(table)
    (tmp_path / "assays.csv").write_text("smiles,a\nCCCCCCCCCCCCC,1\n")
    with pytest.raises(ValueError, match=r"too few compounds of the profiles are in assays=.*CCCCCCCCCCCCC"):
        yielded(table, assays=tmp_path / "assays.csv")
    with pytest.raises(ValueError, match="model='forest'"):
        yielded(table, assays=tmp_path / "assays.csv", model="forest")


def test_the_published_layout_is_read_as_it_is(cpjump1):
    folder = cpjump1.parent / "screens" / "hofmarcher"
    if not folder.is_dir():
        pytest.skip("no screens/hofmarcher beside the checkout")
    found = read_assays(folder)
    assert len(found.compounds) == 10574
    assert len(found.names) == len(set(found.names)) == 209
    assert len(found.outcomes) == 55542
    assert found.outcomes["active"].sum() == 19274
    assert found.compounds[schema.SMILES].str.len().gt(0).mean() > 0.99


def test_the_task_is_in_the_metrics(tmp_path):
    table, effect = compound_screen()
    pd.DataFrame({"smiles": SMILES, "a": effect[:, 5] > 0}).to_csv(tmp_path / "assays.csv", index=False)
    measure = Measure(
        "morphoclip.evaluation.measures.bioactivity.bioactivity", {"assays": tmp_path / "assays.csv"}, "bioactivity"
    )
    card = score(table, tasks=[measure], null_size=50, shuffles=0, bootstrap=50)
    assert card.value("bioactivity", "auroc", "compound_U2OS_24") > 0.8
    assert list(card.details["bioactivity"]["assay"]) == ["a"]
