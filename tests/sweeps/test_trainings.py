"""The proof of a sweep with real trainings: eight trials, one crashes, one is pruned, killed in the middle, gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 500.0
# A rate that is no number crashes; with the lowest one nothing is learnt, so that the trial is behind from the start.
STUDY = """
name: proof
objective: {metric: train/loss, direction: minimize}
space:
  optimizer.lr: {choices: [2.0e-3, 1.0e-7, fast]}
overrides: {experiment: morphoclip_debug, score: none, trainer.log_every_n_steps: 5, trainer.max_steps: 250}
sampler: {type: random, seed: 1417}
pruner: {type: median, n_startup_trials: 1, n_warmup_steps: 20}
n_trials: 8
n_jobs: 2
"""


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline=""))) if path.is_file() else []


@pytest.mark.slow
def test_a_study_of_eight_trials_killed_in_the_middle_is_gone_on_with(tmp_path):
    config, folder = tmp_path / "proof.yaml", tmp_path / "proof"
    config.write_text(STUDY)
    command = [sys.executable, "-m", "morphoclip.cli.main", "sweep", str(config), f"output_dir={tmp_path}"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def states() -> list[str]:
        return [row["state"] for row in table(folder / "sweep.csv")]

    first = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + PATIENCE
    while not (states().count("finished") >= 2 and states().count("running") == 2):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.2)
    done = {row["run"] for row in table(folder / "sweep.csv") if row["state"] != "running"}
    began = {run: json.loads((folder / run / "run.json").read_text()).get("started") for run in done}
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "2 were running and go on" in second.stdout
    rows = table(folder / "sweep.csv")
    assert len(rows) == 8
    by_rate = {row["optimizer.lr"]: row for row in rows}
    assert by_rate["fast"]["state"] == "failed", second.stdout
    assert "str" in by_rate["fast"]["reason"]
    assert by_rate["1e-07"]["state"] == "pruned", second.stdout
    others = [row for row in rows if row["optimizer.lr"] == "0.002"]
    assert [row["state"] for row in others] == ["finished"] * 6, second.stdout
    assert len({row["train/loss"] for row in others}) == 1  # those that were killed ended as the others
    after = {run: json.loads((folder / run / "run.json").read_text()).get("started") for run in done}
    assert after == began  # what was finished was not repeated
    page = (folder / "sweep.html").read_text()
    assert "8 runs:" in page
