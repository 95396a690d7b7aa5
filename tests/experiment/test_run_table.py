"""`morphoclip runs`: what a list says of each run, quickly, what it leaves out and how it sorts."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from morphoclip.cli.main import app
from morphoclip.experiment.run_selection import named, ordered, select, time_of
from morphoclip.experiment.run_table import last_values, read_run, read_runs, read_scores
from morphoclip.lock import FolderLock

NOW = datetime.now().astimezone()
HEAD = "task,subset,metric,value,ci_low,ci_high,n,chance,p_convention\n"


def make_run(folder: Path, state: str = "finished", hours: float = 1.0, **config) -> Path:
    """A run that ended `hours` ago, after 90 s."""
    folder.mkdir(parents=True)
    ended = NOW - timedelta(hours=hours)
    known = {"trainer.max_steps": 100, "encoder.name": "vit", "optimizer.lr": 0.001, **config}
    record = {"state": state, "reason": None, "step": 40, "config": known, "arguments": []}
    record |= {"started": (ended - timedelta(seconds=90)).isoformat(), "ended": ended.isoformat()}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def log(folder: Path, rows: list[dict]) -> None:
    (folder / "logs").mkdir()
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "logs/metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Four runs of two names, one of them scored, and a sweep's."""
    first = make_run(tmp_path / "demo/a", hours=5)
    log(first, [{"step": 10, "train/loss": 2.0, "val/knn": 0.5}, {"step": 20, "train/loss": 1.0}])
    scores = "replicate,all,mean_average_precision,0.5,0.4,0.6,12,0.1,exact\n"
    scores += "replicate,A,mean_average_precision,0.9,,,6,0.1,exact\nbatch_effects,A,silhouette,0.3,,,6,,\n"
    scores += "sister,all,mean_average_precision,0.7,,,3,0.2,exact\n"
    scores += "sister,all,mean_average_precision_ungated,0.25,0.2,0.3,8,0.2,\n"
    (first / "metrics.csv").write_text(HEAD + scores)
    second = make_run(tmp_path / "demo/b", "failed", hours=2, **{"optimizer.lr": 0.01})
    log(second, [{"step": 7, "train/loss": 3.0}])
    make_run(tmp_path / "dino/a-1", "interrupted", hours=50, **{"encoder.name": "${backbone}", "backbone": "resnet"})
    make_run(tmp_path / "sweep/study/trials/3", "pruned", hours=1)
    (tmp_path / "data/simulated/dataset").mkdir(parents=True)
    return tmp_path


def names(runs) -> list[str]:
    return [run.name for run in runs]


def test_a_run_is_described_by_its_files(outputs):
    runs = {run.name: run for run in read_runs(outputs)}
    assert list(runs) == ["demo/a", "demo/b", "dino/a-1", "sweep/study/trials/3"]
    first = runs["demo/a"]
    assert (first.state, first.step, first.max_steps, first.seconds) == ("done", 20, 100, 90)
    assert first.values == {"train/loss": 1.0, "val/knn": 0.5}  # the last of each
    assert {task: score.value for task, score in first.scores.items()} == {"replicate": 0.5, "sister": 0.25}
    assert (first.scores["sister"].ci_low, first.scores["sister"].n) == (0.2, 8)
    assert [run.state for run in runs.values()] == ["done", "failed", "interrupted", "pruned"]
    assert runs["dino/a-1"].step == 40  # of the checkpoint, where nothing is logged
    assert runs["dino/a-1"].config["encoder.name"] == "resnet"  # references are followed


HOLD = "import sys; from morphoclip.lock import FolderLock; FolderLock(sys.argv[1]).acquire(); print('held', flush=True); input()"


def test_a_run_whose_process_is_gone_has_died(tmp_path):
    folder = make_run(tmp_path / "demo/a", "running")
    assert read_run(folder).state == "died"  # nobody has the lock
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder / "run.lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    running = read_run(folder)
    assert running.state == "running"
    since_import = (datetime.now().astimezone() - NOW).total_seconds()
    assert running.seconds == pytest.approx(3600 + 90 + since_import, abs=60)  # until now
    process.kill()
    process.wait()
    assert read_run(folder).state == "died"
    assert (folder / "run.lock").is_file()  # looking at it takes nothing
    with FolderLock(folder / "run.lock"):
        assert read_run(folder).state == "running"


@pytest.mark.parametrize(("silent", "state"), [(5, "running"), (200, "died")])
def test_a_run_on_another_host_lives_by_its_heartbeat(tmp_path, silent, state):
    folder = make_run(tmp_path / "demo/a", "running")
    (folder / "run.lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": None}))
    os.utime(folder / "run.lock", (time.time() - silent,) * 2)
    assert read_run(folder).state == state


def test_only_the_end_of_long_curves_is_read(tmp_path):
    log(tmp_path, [{"step": step, "train/loss": step / 10, "rare": 1.0 if step == 0 else None} for step in range(9000)])
    path = tmp_path / "logs/metrics.csv"
    assert path.stat().st_size > 100_000
    assert last_values(path) == {"step": 8999, "train/loss": 899.9}
    with path.open("a") as file:
        file.write("9000,9")  # being written
    assert last_values(path)["step"] == 8999


def test_a_run_without_curves_or_scores_has_none(tmp_path):
    assert last_values(tmp_path / "logs/metrics.csv") == {}
    assert read_scores(tmp_path / "metrics.csv") == {}


def test_a_damaged_record_is_named(tmp_path):
    make_run(tmp_path / "demo/a")
    (tmp_path / "demo/a/run.json").write_text("{")
    (run,) = read_runs(tmp_path)
    assert run.state == "unknown"
    assert run.reason.startswith("run.json cannot be read")


def test_runs_are_selected_by_state_name_config_and_time(outputs):
    runs = read_runs(outputs)
    assert names(select(runs, ["failed", "pruned"])) == ["demo/b", "sweep/study/trials/3"]
    assert names(select(runs, ["finished"])) == names(select(runs, ["done"])) == ["demo/a"]
    assert names(select(runs, name="demo")) == ["demo/a", "demo/b"]
    assert names(select(runs, name="*/a*")) == ["demo/a", "dino/a-1"]
    assert names(select(runs, where=["optimizer.lr=1e-2"])) == ["demo/b"]
    assert names(select(runs, where=["encoder.name=resnet"])) == ["dino/a-1"]
    assert names(select(runs, where=["encoder.name=vit", "optimizer.lr=0.001"])) == ["demo/a", "sweep/study/trials/3"]
    assert names(select(runs, since="3h")) == ["demo/b", "sweep/study/trials/3"]
    assert names(select(runs, since=(NOW - timedelta(days=1)).isoformat())) == [
        "demo/a",
        "demo/b",
        "sweep/study/trials/3",
    ]
    assert time_of("2026-11-27").isoformat().startswith("2026-11-27T00:00:00")


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"states": ["crashed"]}, "--state crashed: choose among running, done"),
        ({"where": ["optimizer.rl=1"]}, "no config has the key optimizer.rl; nearest: optimizer.lr"),
        ({"where": ["optimizer.lr"]}, "give key=value"),
        ({"since": "yesterday"}, "--since yesterday: give a date"),
    ],
)
def test_a_wrong_condition_says_what_to_give(outputs, conditions, said):
    with pytest.raises(ValueError, match=said):
        select(read_runs(outputs), **conditions)


def test_runs_are_sorted_by_any_column(outputs):
    runs = read_runs(outputs)
    assert names(ordered(runs))[0] == "sweep/study/trials/3"  # active last
    assert names(ordered(runs, "train/loss"))[:2] == ["demo/a", "demo/b"]
    assert names(ordered(runs, "-loss"))[:2] == ["demo/b", "demo/a"]  # those without a value stay behind
    assert names(ordered(runs, "replicate"))[0] == "demo/a"
    assert names(ordered(runs, "-state"))[0] == "sweep/study/trials/3"
    with pytest.raises(ValueError, match="--sort train/lose: no run has such a column; nearest: train/loss"):
        ordered(runs, "train/lose")


def test_a_run_is_found_by_its_id_name_or_folder(outputs):
    runs = read_runs(outputs)
    assert named(runs, "b").name == named(runs, "demo/b").name == "demo/b"
    assert named(runs, str(outputs / "demo/b")).folder == outputs / "demo/b"
    assert named(runs, "latest").name == "sweep/study/trials/3"
    with pytest.raises(FileNotFoundError, match=r"there is no run 'a-2'; nearest: dino/a-1"):
        named(runs, "a-2")
    make_run(outputs / "other/b")
    with pytest.raises(ValueError, match="b is the id of several runs: give one of demo/b, other/b"):
        named(read_runs(outputs), "b")


def test_a_thousand_runs_are_listed_in_a_few_seconds(tmp_path):
    for number in range(1000):
        folder = make_run(tmp_path / f"sweep/{number:04d}", hours=number)
        log(folder, [{"step": step, "train/loss": 1 / (1 + step)} for step in range(20)])
        for name in ("checkpoints", "encoder", "profiles"):
            (folder / name).mkdir()
        (folder / "metrics.csv").write_text(HEAD + f"replicate,all,mean_average_precision,{number},,,6,0.1,exact\n")
    program = (
        "import sys, time; from morphoclip.cli.main import app\n"
        "began = time.process_time()\n"
        "try:\n    app(sys.argv[1:])\n"
        "finally:\n"
        "    print(time.process_time() - began, 'torch' in sys.modules, 'pandas' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "runs", "--output-dir", str(tmp_path), "--sort", "-replicate", "--limit", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["run", "sweep/0999", "sweep/0998", "sweep/0997"]
    seconds, *heavy = done.stderr.split()
    assert heavy == ["False", "False"]
    assert float(seconds) < 5  # on one core of a small machine; it takes half a second


def run_command(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["runs", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_list_in_a_pipe_is_plain_text(outputs):
    head, *lines = run_command("--output-dir", str(outputs), "--sort", "run", "--show", "step").splitlines()
    assert head.split() == ["run", "state", "step", "time", "active", "train/loss", "val/knn", "step", "score/replicate", "score/sister"]  # fmt: skip
    assert lines[0].split()[:4] == ["demo/a", "done", "20/100", "0:01:30"]
    assert lines[0].split()[-5:] == ["1", "0.5", "20", "0.5", "0.25"]
    assert run_command("--output-dir", str(outputs), "--state", "running") == "no runs\n"


def test_a_list_as_json_and_csv_has_every_value(outputs):
    found = json.loads(run_command("--output-dir", str(outputs), "--json", "--name", "demo/a"))
    assert found[0]["values"]["val/knn"] == 0.5
    assert found[0]["scores"]["sister"] == {"value": 0.25, "ci_low": 0.2, "ci_high": 0.3, "n": 8, "chance": 0.2}
    log(outputs / "dino/a-1", [{"step": 1, "train/loss": float("nan")}])
    assert "NaN" not in run_command("--output-dir", str(outputs), "--json")
    rows = list(csv.DictReader(run_command("--output-dir", str(outputs), "--csv", "--sort", "run").splitlines()))
    assert [row["run"] for row in rows] == names(read_runs(outputs))
    assert (rows[0]["train/loss"], rows[0]["score/sister"], rows[1]["score/sister"]) == ("1.0", "0.25", "")


def test_one_run_is_shown_with_its_starts(outputs):
    start = {"started": "2026-11-27T10:00:00+00:00", "version": "0.1.0", "host": "node7", "gpus": ["H100"]}
    start |= {"torch": "2.8", "commit": "0123456789abcdef", "diff": "code.diff", "datasets": {"/data": "f" * 64}}
    (outputs / "demo/a/environment.json").write_text(json.dumps([start]))
    said = run_command("--output-dir", str(outputs), "show", "demo/a")
    assert "commit 0123456789ab with code.diff, node7, H100, torch 2.8" in said
    assert ["dataset", "/data", "manifest", "ffffffffffff"] in [line.split() for line in said.splitlines()]
    assert "0.250 [0.200, 0.300], chance 0.2" in said
    whole = json.loads(run_command("show", str(outputs / "demo/a"), "--json"))
    assert (whole["starts"], whole["config"]["optimizer.lr"]) == ([start], 0.001)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    result = CliRunner().invoke(app, ["runs", "--output-dir", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert f"error: there is no folder {tmp_path}/none" in result.stderr
