"""Launchers: what each leaves in the environment, and what asking for more than that says."""

from __future__ import annotations

import os

import pytest

from morphoclip.training.launch import (
    Job,
    Launch,
    on_rank_zero,
    read_job,
    read_launch,
    trainer_devices,
    trainer_precision,
)

VARIABLES = ["LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"]
VARIABLES += ["SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_no_launcher_is_one_process():
    assert read_launch() == Launch(rank=0, world_size=1, local_world_size=1)


def test_torchrun(monkeypatch):
    for name, value in {"LOCAL_WORLD_SIZE": "4", "RANK": "6", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert read_launch() == Launch(rank=6, world_size=8, local_world_size=4)
    assert read_launch().nodes == 2


def test_srun(monkeypatch):
    for name, value in {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_NUM_NODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert read_launch() == Launch(rank=3, world_size=8, local_world_size=4)


def test_asking_for_more_devices_prints_the_torchrun_line():
    with pytest.raises(ValueError, match=r"torchrun --nproc-per-node 8 train\.py"):
        trainer_devices(read_launch(), 8)
    assert trainer_devices(read_launch(), "auto") == trainer_devices(read_launch(), 1) == 1


@pytest.mark.parametrize(
    ("requested", "accelerator", "gpu", "expected"),
    [
        (None, "auto", True, "bf16-mixed"),
        (None, "cpu", True, "32-true"),
        (None, "auto", False, "32-true"),
        ("32-true", "gpu", True, "32-true"),
    ],
)
def test_gpus_train_in_bf16_by_default(requested, accelerator, gpu, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: gpu)
    assert trainer_precision(requested, accelerator) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Job(None)),
        ({"SLURM_JOB_ID": "7"}, Job("slurm-7")),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, Job("slurm-7", (2, 0))),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, Job("slurm-7-3")),
        ({"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "1"}, Job("torchrun-x", (0, 1))),
        ({"SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "1"}, Job("slurm-7", (0, 1))),
    ],
)
def test_a_job_and_its_restarts(variables, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_job() == expected


def test_torchrun_without_an_id_is_told_from_another_on_this_host(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert read_job().name == f"torchrun-{os.uname().nodename}-{os.getppid()}"


def test_an_error_on_rank_zero_is_raised(monkeypatch):
    assert on_rank_zero(lambda: 3) == 3
    with pytest.raises(ValueError, match="wrong"):
        on_rank_zero(lambda: (_ for _ in ()).throw(ValueError("wrong")))
