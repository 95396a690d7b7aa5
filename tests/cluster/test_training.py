"""Training in a real Slurm: ranks of srun, jobs that are requeued in mid-training, and several runs in one job."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.reliability.commands import ROOT, STEPS, TINY, assert_same_weights, curves, last_step, record

SCRIPT = ROOT / "slurm/train.sbatch"
ONE_RANK = ["--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1"]
TWO_RANKS = ["--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1"]


def encoder_hashes(runs: list[Path]) -> set[str]:
    return {hashlib.sha256((run / "encoder/model.safetensors").read_bytes()).hexdigest() for run in runs}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def recipe(outputs) -> list[str]:
    return [*TINY, "trainer=ddp", f"output_dir={outputs}"]


@pytest.fixture(scope="module")
def submit(slurm, recipe, outputs):
    """Submit slurm/train.sbatch with options of sbatch; returns the job's id and the folder of its run."""

    def start(*resources: str) -> tuple[str, Path]:
        job = slurm.submit(*resources, SCRIPT, *recipe, folder=ROOT)
        return job, outputs / f"demo/slurm-{job}-1"

    return start


@pytest.fixture(scope="module")
def straight(slurm, submit) -> Path:
    """The folder of a run on one task on each of two nodes, which nothing disturbed."""
    job, run = submit(*ONE_RANK, "--nodes=2")
    slurm.wait(job, "COMPLETED")
    return run


def test_two_nodes_train_one_model(straight):
    assert (record(straight)["state"], record(straight)["ranks"]) == ("finished", 2)
    assert [int(row["step"]) for row in curves(straight)] == list(range(1, STEPS + 1))
    assert (straight / "encoder/model.safetensors").is_file()


def test_a_job_near_its_time_limit_and_then_preempted_ends_like_one_that_was_not(slurm, submit, straight):
    job, run = submit(*TWO_RANKS, "--exclusive")
    slurm.wait_until(job, lambda: last_step(run) >= 5)
    slurm.ask("scancel", "--signal=USR1", "--batch", job)
    slurm.wait(job, "PENDING")
    known = record(run)
    assert (known["state"], known["reason"]) == ("interrupted", "interrupted by SIGUSR1")
    slurm.release(job)
    slurm.wait_until(job, lambda: last_step(run) >= known["step"] + 5)
    urgent = slurm.submit("--partition=urgent", "--exclusive", "--nodes=2", "--wrap=true", folder=slurm.folder)
    slurm.wait(urgent, "COMPLETED")
    slurm.wait(job, "PENDING")
    assert record(run)["reason"] == "interrupted by SIGTERM"
    slurm.release(job)
    slurm.wait(job, "COMPLETED")
    assert sorted(run.parent.glob(f"slurm-{job}-*")) == [run]
    assert record(run)["restarts"] == [2, 0]
    assert_same_weights(run, straight)
    assert curves(run) == curves(straight)


@pytest.mark.slow
def test_a_sweep_in_a_job_gives_one_encoder_a_run(slurm, recipe, outputs):
    sweep = ["-m", *recipe, "name=sweep", "trainer.max_steps=2", "seed=0,1"]
    job = slurm.submit(*TWO_RANKS, SCRIPT, *sweep, folder=ROOT)
    slurm.wait(job, "COMPLETED")
    runs = [outputs / f"sweep/slurm-{job}-1" / str(number) for number in range(2)]
    assert len(encoder_hashes(runs)) == 2


@pytest.mark.slow
@pytest.mark.slow
def test_a_requeued_job_of_two_runs_goes_on_with_the_one_that_was_interrupted(slurm, recipe, outputs, tmp_path):
    script = tmp_path / "loop.sbatch"
    script.write_text('#!/bin/bash\nfor lr in 1e-3 1e-2; do\n    srun $MORPHOCLIP train "$@" optimizer.lr=$lr\ndone\n')
    job = slurm.submit("--requeue", "--open-mode=append", script, *recipe, "name=loop", folder=ROOT)
    first, second = (outputs / f"loop/slurm-{job}-{number}" for number in (1, 2))
    slurm.wait_until(job, lambda: last_step(second) >= 5)
    slurm.ask("scontrol", "requeue", job)
    slurm.release(job)
    slurm.wait(job, "COMPLETED")
    assert sorted(first.parent.iterdir()) == [first, second]
    assert f"{first} is finished at step {STEPS}: nothing is left to do" in slurm.output(job)
    assert [int(row["step"]) for row in curves(second)] == list(range(1, STEPS + 1))
    assert len(encoder_hashes([first, second])) == 2
