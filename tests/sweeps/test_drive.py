"""A study over a stub of a training: crashes, pruning, kills and interruptions, and what the same command does after."""

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

from tests.sweeps.driver import run

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "study/sweep.csv").open(newline="")))


def starts(folder: Path) -> dict[str, list[list[int]]]:
    """Trial -> (process, step) of each of its starts."""
    paths = sorted(folder.glob("study/trial-*/run.json"))
    return {path.parent.name: json.loads(path.read_text())["starts"] for path in paths}


def begin(config: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.sweeps.driver", str(config), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_until(done, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_study_finds_the_best_and_records_a_crash_and_a_pruned_trial(tmp_path, config, capsys):
    # A rate above 0.1 crashes; long trials end only by being pruned.
    space = "space:\n  optimizer.lr: {choices: [1.0e-3, 2.0e-3, 0.5, 1.0e-5]}\n"
    text = config.read_text()
    config.write_text(text[: text.index("space:")] + space + text[text.index("sampler:") :])
    pruner = ["pruner.type=median", "pruner.n_startup_trials=1", "n_jobs=1", "n_trials=12", "trainer.max_steps=40"]
    assert run(config, *pruner) == 0
    rows = table(tmp_path)
    assert len(rows) == 12
    by_rate = {rate: {row["state"] for row in rows if float(row["optimizer.lr"]) == rate} for rate in (0.5, 1e-5)}
    assert by_rate[0.5] == {"failed"}
    assert "pruned" in by_rate[1e-5]
    assert {row["reason"] for row in rows if row["state"] == "failed"} == {
        "FloatingPointError: loss at step 3 not finite with 0.5"
    }
    finished = [row for row in rows if row["state"] == "finished"]
    best = min(finished, key=lambda row: float(row["train/loss"]))
    assert float(best["optimizer.lr"]) == 1e-3
    printed = capsys.readouterr().out
    assert f"best: {best['run'].replace('-', ' ')}, train/loss 0.025: optimizer.lr=0.001" in printed
    assert all(
        not (tmp_path / "study" / row["run"] / "prune.json").exists() or row["state"] == "pruned" for row in rows
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_killed_or_interrupted_goes_on_with_its_trials_and_repeats_none(tmp_path, config, number):
    arguments = ["trainer.max_steps=6"]
    process = begin(config, *arguments)
    wait_until(lambda: len(list(tmp_path.glob("study/trial-*/run.json"))) >= 3, process)
    (tmp_path / "hang").touch()  # so that two trials run when the sweep ends
    wait_until(lambda: sum("running" in row["state"] for row in table(tmp_path)) == 2, process)
    time.sleep(0.3)
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGINT), output
    (tmp_path / "hang").unlink()
    before = starts(tmp_path)
    running = [f"trial-{i}" for i in range(len(before)) if len(before[f"trial-{i}"]) == 1][-2:]
    saved = {}
    for name in running:  # told by the kernel, or by the sweep
        path = tmp_path / "study" / name / "run.json"
        until = time.monotonic() + PATIENCE
        while json.loads(path.read_text())["state"] != "interrupted":
            assert time.monotonic() < until
            time.sleep(0.02)
        saved[name] = json.loads(path.read_text())["step"]
    assert run(config, *arguments) == 0
    rows, after = table(tmp_path), starts(tmp_path)
    assert [row["state"] for row in rows] == ["finished"] * 8
    assert [name for name in after if len(after[name]) == 2] == running
    assert {name: after[name][1][1] for name in running} == saved  # each went on at the step that it had saved
    assert min(saved.values()) > 0
    assert run(config, *arguments) == 0
    assert starts(tmp_path) == after


def test_what_is_drawn_does_not_depend_on_where_a_sweep_was_ended(tmp_path, config):
    assert run(config, "n_trials=2", "n_jobs=1", "trainer.max_steps=1") == 0
    assert run(config, "n_trials=5", "n_jobs=1", "trainer.max_steps=1") == 0
    interrupted = [row["optimizer.lr"] for row in table(tmp_path)]
    assert run(config, "n_trials=5", "n_jobs=1", "trainer.max_steps=1", "name=straight") == 0
    straight = list(csv.DictReader((tmp_path / "straight/sweep.csv").open(newline="")))
    assert interrupted == [row["optimizer.lr"] for row in straight]
    assert len(set(interrupted)) == 5


def test_another_search_space_in_the_same_folder_is_refused(config):
    assert run(config, "n_trials=1", "trainer.max_steps=1") == 0
    with pytest.raises(ValueError, match=r"study with another overrides .*give the sweep another name"):
        run(config, "n_trials=2", "trainer.max_steps=2")


def test_a_metric_that_is_never_logged_ends_the_sweep_with_the_names_of_those_that_are(config):
    with pytest.raises(ValueError, match=r"val/los was never logged in .*; logged are train/loss"):
        run(config, "objective.metric=val/los", "trainer.max_steps=1")


def test_a_key_that_the_config_has_not_is_refused_before_anything_starts(tmp_path, config):
    from hydra.errors import HydraException

    with pytest.raises(HydraException, match="optimiser"):
        run(config, "optimiser.weight_decay=0.1")
    assert not (tmp_path / "study").exists()


def test_the_folder_of_another_study_is_refused(tmp_path, config):
    assert run(config, "n_trials=1", "trainer.max_steps=1") == 0
    (tmp_path / "study/study.db").unlink()
    with pytest.raises(ValueError, match=r"trial-0 is a run of another study, whose study.db is gone"):
        run(config, "n_trials=1", "trainer.max_steps=1")


def test_a_time_limit_interrupts_and_the_same_command_goes_on(tmp_path, config):
    (tmp_path / "hang").touch()
    assert run(config, "timeout=00:00:01", "n_trials=2", "trainer.max_steps=3") == 124
    assert {row["state"] for row in table(tmp_path)} == {"interrupted"}
    (tmp_path / "hang").unlink()
    assert run(config, "n_trials=2", "trainer.max_steps=3") == 0
    assert {row["state"] for row in table(tmp_path)} == {"finished"}
