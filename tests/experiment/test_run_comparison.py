"""`morphoclip runs compare`: what differs between runs, and gains that are paired where the tables allow it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from morphoclip.cli.main import app
from morphoclip.evaluation import compare, score
from morphoclip.experiment.run_comparison import changed_files, compare_runs, differing
from morphoclip.experiment.run_table import read_run
from tests.evaluation.card.test_scorecard import FEATURES, QUICK
from tests.experiment.test_run_table import make_run

DIFF = """diff --git a/src/a.py b/src/a.py
--- a/src/a.py
+++ b/src/a.py
@@ -1,2 +1,2 @@
-old
+new
+newer
"""


def start(commit: str, diff: str | None = None, **packages: str) -> dict:
    facts = {"version": "0.1.0", "host": "n1", "gpus": [], "python": "3.11", "torch": "2.8", "cuda": None}
    return {**facts, "commit": commit, "diff": diff, "packages": packages, "datasets": {"/data": "m1"}}


@pytest.fixture(scope="module")
def cards(make_screen):
    """Score cards of two methods that share most of their noise, the first the better one."""
    better = make_screen(9, signal=1.2)
    worse = better.copy()
    worse[FEATURES] += 0.8 * np.random.default_rng(0).standard_normal((len(worse), len(FEATURES)))
    return score(better, **QUICK), score(worse, **QUICK)


@pytest.fixture
def runs(tmp_path, cards) -> list[Path]:
    folders = [make_run(tmp_path / "demo/a"), make_run(tmp_path / "demo/b", **{"optimizer.lr": 0.01, "seed": 3})]
    starts = [start("a" * 40, numpy="2.0", pandas="2.2"), start("b" * 40, "code.diff", numpy="2.1", pandas="2.2")]
    for folder, card, each in zip(folders, reversed(cards), starts, strict=True):
        card.write(folder)
        (folder / "environment.json").write_text(json.dumps([each]))
    (folders[1] / "code.diff").write_text(DIFF)
    return folders


def test_config_code_and_packages_that_differ_are_listed(runs):
    found = compare_runs([read_run(folder) for folder in runs])
    assert found.config == {"optimizer.lr": [0.001, 0.01], "seed": ["absent", 3]}
    assert found.environment == {
        "commit": ["a" * 40, "b" * 40],
        "uncommitted changes": [[], ["src/a.py +2 -1"]],
        "package numpy": ["2.0", "2.1"],
    }


def test_the_replicate_gain_is_that_of_the_score_cards(runs, cards):
    found = compare_runs([read_run(folder) for folder in runs])
    expected = compare([cards[0]], [cards[1]], ["replicate"])
    (none, gain) = found.gains["replicate"]
    assert none is None
    assert (gain.value, gain.ci_low, gain.ci_high) == pytest.approx((expected.value, expected.ci_low, expected.ci_high))
    assert gain.rows == expected.n_rows
    assert gain.ci_low > 0
    for task in ("sister", "compound_gene"):
        first, second = found.scores[task]
        assert found.gains[task][1].value == second.value - first.value
        assert str(found.gains[task][1]).endswith("(not paired)")


def test_runs_without_common_rows_are_not_paired(runs):
    table = (runs[0] / "replicate.csv").read_text()
    (runs[0] / "replicate.csv").write_text(
        table.replace("compound-", "other-").replace("crispr-", "x-").replace("orf-", "y-")
    )
    gain = compare_runs([read_run(folder) for folder in runs]).gains["replicate"][1]
    assert gain.rows is None


def test_a_rotation_is_not_paired(runs):
    record = json.loads((runs[0] / "run.json").read_text())
    record["config"]["rotation.unit"] = "gene"
    (runs[0] / "run.json").write_text(json.dumps(record))
    assert compare_runs([read_run(folder) for folder in runs]).gains["replicate"][1].rows is None


def test_runs_without_scores_and_environment_are_compared_by_config(tmp_path):
    folders = [make_run(tmp_path / name) for name in ("demo/a", "demo/b")]
    found = compare_runs([read_run(folder) for folder in folders])
    assert (found.config, found.environment, found.scores) == ({}, {}, {})
    with pytest.raises(ValueError, match="at least two runs"):
        compare_runs([read_run(folders[0])])


def test_differing_holds_several_values_in_order():
    assert differing([{"a": 1, "b": 2}, {"a": 1}, {"a": 1, "b": 3}]) == {"b": [2, "absent", 3]}


def test_files_of_a_diff_are_counted(tmp_path):
    (tmp_path / "code.diff").write_text(DIFF + DIFF.replace("a.py", "b c.py"))
    assert changed_files(tmp_path / "code.diff") == ["src/a.py +2 -1", "src/b c.py +2 -1"]


def test_the_command_prints_and_dumps_a_comparison(runs, tmp_path):
    result = CliRunner().invoke(app, ["runs", "--output-dir", str(tmp_path), "compare", "demo/a", "b"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["config", "demo/a", "demo/b"]
    assert ["optimizer.lr", "0.001", "0.01"] in [line.split() for line in lines]
    assert "1 packages have other versions (--packages)" in lines
    assert any(line.startswith("  gain") and "common rows)" in line for line in lines)
    told = CliRunner().invoke(app, ["runs", "compare", str(runs[0]), str(runs[1]), "--packages"]).output
    assert "package numpy" in told
    dumped = json.loads(CliRunner().invoke(app, ["runs", "compare", *map(str, runs), "--json"]).output)
    assert dumped["config"]["seed"] == ["absent", 3]
    assert dumped["gains"]["replicate"][1]["rows"] > 0
