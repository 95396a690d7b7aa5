"""`evaluate.py` as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from morphoclip.cli.hydra_app import main

ROOT = Path(__file__).parents[2]


def evaluate(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "evaluate.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_real_plates_from_the_command_line(cpjump1, tmp_path):
    run = evaluate(
        f"profiles={cpjump1.resolve()}/profiles/*.csv.gz",
        f"metadata={cpjump1.resolve()}/metadata",
        "protocol=cpjump1", "tasks=[replicate,sister]", "normalize=none", "null_size=300", "umap=false", "output_dir=out",
        cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    files = {
        "metrics.csv",
        "arms.csv",
        "replicate.csv",
        "sister.csv",
        "sister_ungated.csv",
        "report.html",
        "scores.json",
    }
    assert {p.name for p in (tmp_path / "out").iterdir()} == files
    metrics = pd.read_csv(tmp_path / "out" / "metrics.csv")
    value = metrics.query("task == 'replicate' and subset == 'all' and metric == 'mean_average_precision'")[
        "value"
    ].iloc[0]
    assert value == pytest.approx(0.66456, abs=1e-5)
    table = pd.read_csv(tmp_path / "out" / "replicate.csv")
    assert len(table) == 306
    assert table["n_queries"].sum() == 960
    assert "compound_U2OS_24: 3 of 4 plates, no profiles of BR00116995" in run.stdout
    assert "the smallest reachable is 0.0033" in run.stdout  # 1/301
    assert "Fractions retrieved by CellProfiler" in (tmp_path / "out" / "report.html").read_text()  # beside ours


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profiles=screen.csv", "profile=x"], "profile"),
        (["profiles=nothing*.csv"], "matches no file"),
        ([], "exactly one of profiles=, encoder= and checkpoint="),
        (["profiles=screen.csv", "protocol=cpjump1", "umap=false"], "Metadata_density"),
        (["profiles=screen.csv", "strict=maybe"], "strict='maybe': give true or false"),
    ],
)
def test_mistakes_are_named(tmp_path, make_screen, monkeypatch, capfd, arguments, words):
    monkeypatch.chdir(tmp_path)
    make_screen(0).to_csv("screen.csv", index=False)
    with pytest.raises(SystemExit) as exit:
        main("evaluate", arguments)
    assert exit.value.code != 0
    assert words in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["screen.csv"]
