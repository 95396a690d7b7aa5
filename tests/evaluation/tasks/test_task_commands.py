"""Tasks on the command line: their fields, negatives, tasks of one's own, and a baseline that has other wells."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.cli.hydra_app import main
from morphoclip.evaluation.measures.row import Row

QUICK = ["umap=false", "null_size=50"]


@pytest.fixture
def profiles(make_screen, tmp_path):
    table = make_screen(1, signal=2.0)
    table = table[table[schema.MODALITY] == "compound"].drop(
        columns=[schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT]
    )
    table.to_csv(tmp_path / "wells.csv", index=False)
    return tmp_path / "wells.csv"


def metrics_of(folder) -> pd.Series:
    return pd.read_csv(folder / "metrics.csv").set_index(["task", "subset", "metric"])["value"]


def wells_of_plates(sets, protocol, *, seed: int, factor: float = 1.0):
    """The number of wells of a set."""
    for plate_set in sets:
        yield Row(plate_set.name, "wells", factor * len(plate_set.table), len(plate_set.table))


def test_fields_of_a_task_and_a_task_of_ones_own(profiles, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "labtasks", sys.modules[__name__])
    folder = tmp_path / "lab" / "task"
    folder.mkdir(parents=True)
    (folder / "wells.yaml").write_text(
        "_target_: morphoclip.evaluation.Measure\nfunction: labtasks.wells_of_plates\noptions: {factor: '${seed}'}\n"
    )
    out = tmp_path / "out"
    changed = [
        "tasks=[replicate,same_compound,wells]",
        "task.same_compound.negatives=set",
        "negatives=others",
        "seed=2",
    ]
    main(
        "evaluate",
        ["--config-dir", str(tmp_path / "lab"), f"profiles={profiles}", *changed, *QUICK, f"output_dir={out}"],
    )
    found = metrics_of(out)
    assert found["wells", "all", "wells"] == 2 * 108
    tables = {task: pd.read_csv(out / f"{task}.csv") for task in ("replicate", "same_compound_ungated")}
    negatives = {task: (t["n_total_pairs"] - t["n_pos_pairs"]).unique().tolist() for task, t in tables.items()}
    assert negatives == {"replicate": [69], "same_compound_ungated": [36]}  # a field of a task is about that task only
    page = (out / "report.html").read_text()
    assert "Same perturbation among others" in page
    assert "The number of wells of a set." in page


def test_a_mistake_is_named(profiles, tmp_path, capfd):
    for wrong, words in (
        ("task.replicat.negatives=set", "task.replicat is changed but not scored: the tasks are ['replicate']"),
        ("task.replicate.negative=set", "unknown field: choose among"),
        ("tasks=[replicates]", "nearest: replicate"),
        ("negatives=plates", "negatives='plates': choose among ['plate', 'set', 'others']"),
    ):
        with pytest.raises(SystemExit):
            main("evaluate", [f"profiles={profiles}", "tasks=[replicate]", wrong, *QUICK, f"output_dir={tmp_path}/out"])
        assert words in capfd.readouterr().err


def test_a_baseline_with_other_wells_is_scored_on_those_in_common(profiles, tmp_path, capfd):
    table = pd.read_csv(profiles)
    fewer = tmp_path / "fewer.csv"
    table[table[schema.PLATE] != "compound0"].to_csv(fewer, index=False)
    command = ["tasks=[replicate]", *QUICK]
    main("evaluate", [f"profiles={profiles}", f"baseline={fewer}", *command, f"output_dir={tmp_path}/both"])
    said = capfd.readouterr().out
    assert "baseline has 72 wells, profiles has 108 wells: all are scored on the 72 that they have in common" in said
    main("evaluate", [f"profiles={fewer}", *command, f"output_dir={tmp_path}/alone"])
    pd.testing.assert_series_equal(metrics_of(tmp_path / "both"), metrics_of(tmp_path / "alone"))
    arms = pd.read_csv(tmp_path / "both" / "arms.csv").set_index("arm")
    assert arms.loc["baseline", "gain"] == 0
    table.assign(**{schema.PLATE: "x" + table[schema.PLATE]}).to_csv(fewer, index=False)
    with pytest.raises(SystemExit):
        main("evaluate", [f"profiles={profiles}", f"baseline={fewer}", *command, f"output_dir={tmp_path}/none"])
    assert "the profiles to compare have no well in common by" in capfd.readouterr().err
