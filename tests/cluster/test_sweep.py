"""Sweeps through a real Slurm: a grid whose runs are jobs, and a study whose driver is a job that is requeued."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import wait_until
from tests.reliability.commands import ROOT, curves, last_step, record

RECIPE = ["experiment=morphoclip_debug", "score=none", "trainer.log_every_n_steps=2"]
RESOURCES = ["gpus_per_node=0", "cpus_per_task=1", "timeout_min=10"]
STUDY = """
name: study
objective: {metric: train/loss, direction: minimize}
space:
  optimizer.lr: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
"""


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(newline=""))) if path.is_file() else []


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


def test_each_run_of_a_grid_is_a_job_and_a_failed_one_is_recorded(slurm, outputs):
    launcher = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{resource}" for resource in RESOURCES)]
    grid = ["-m", *launcher, *RECIPE, f"output_dir={outputs}", "run_id=grid", "trainer.max_steps=2"]
    done = subprocess.run(
        [sys.executable, "train.py", *grid, "optimizer.lr=1e-3,1e-2,fast"],
        cwd=ROOT,
        env=slurm.env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "error: 1 of 3 runs failed: 2" in done.stderr
    folder = outputs / "morphoclip_debug/grid"
    table = rows(folder / "sweep.csv")
    assert [(row["optimizer.lr"], row["state"]) for row in table] == [
        ("0.001", "finished"),
        ("0.01", "finished"),
        ("fast", "failed"),
    ]
    assert "float" in table[2]["reason"]
    assert float(table[0]["train/loss"]) > 0
    assert (folder / "sweep.html").is_file()
    jobs = {record(folder / str(number))["job"] for number in range(3)}
    assert len(jobs) == 3  # tasks of one array
    assert all(job.startswith("slurm-") for job in jobs)


@pytest.mark.slow
def test_a_study_goes_on_after_its_driver_was_requeued_and_takes_up_its_jobs(slurm, outputs, tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(STUDY)
    launcher = ["launcher.type=slurm", "launcher.poll_s=1", *(f"launcher.{resource}" for resource in RESOURCES)]
    sweep = [str(config), *launcher, *RECIPE, f"output_dir={outputs}", "n_trials=3", "n_jobs=2"]
    job = slurm.submit("--cpus-per-task=1", ROOT / "slurm/sweep.sbatch", *sweep, folder=ROOT)
    folder = outputs / "study"
    slurm.wait_until(job, lambda: sum(row["state"] == "running" for row in rows(folder / "sweep.csv")) == 2)
    slurm.ask("scancel", "--signal=USR1", "--batch", job)
    slurm.wait(job, "PENDING")
    assert "2 jobs run on" in slurm.output(job)
    slurm.release(job)
    slurm.wait(job, "COMPLETED")
    assert [row["state"] for row in rows(folder / "sweep.csv")] == ["finished"] * 3
    submitted = {json.loads((folder / f"trial-{n}/run.json").read_text())["job"] for n in range(3)}
    assert len(submitted) == 3
    assert len(list((folder / "submitit").glob("*_submission.sh"))) == 3  # none was submitted twice


@pytest.mark.slow
@pytest.mark.slow
def test_a_job_of_a_grid_near_its_time_limit_saves_and_goes_on(slurm, outputs):
    launcher = ["hydra/launcher=submitit_slurm", *(f"hydra.launcher.{resource}" for resource in RESOURCES)]
    grid = ["-m", *launcher, *RECIPE, f"output_dir={outputs}", "run_id=limit", "trainer.max_steps=600", "seed=0"]
    driver = subprocess.Popen(
        [sys.executable, "train.py", *grid],
        cwd=ROOT,
        env=slurm.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run = outputs / "morphoclip_debug/limit/0"
    try:
        wait_until(lambda: last_step(run) >= 20)
        job = record(run)["job"].removeprefix("slurm-").replace("-", "_")
        slurm.ask("scancel", "--signal=USR2", job)
        wait_until(lambda: slurm.state(job) == "PENDING")
        assert record(run)["reason"] == "interrupted by SIGUSR1"
        saved = record(run)["step"]
        assert saved >= 20
        slurm.release(job)
        output, _ = driver.communicate(timeout=400)
    finally:
        driver.kill()
    assert driver.returncode == 0, output
    assert (record(run)["state"], record(run)["step"]) == ("finished", 600)
    assert [int(row["step"]) for row in curves(run)] == list(range(2, 601, 2))
