"""Launchers: what each leaves in the environment, and what asking for more than that says."""

from __future__ import annotations

import pytest

from morphoclip.training.launch import Launch, read_launch, trainer_devices, trainer_precision
from morphoclip.training.run_folder import last_checkpoint, run_folder

VARIABLES = ["LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID"]


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


def test_a_requeued_job_finds_its_folder_and_a_new_start_does_not(tmp_path, monkeypatch):
    assert run_folder(tmp_path, "demo") != run_folder(tmp_path, "demo")
    assert run_folder(tmp_path, "demo", "mine") == tmp_path / "demo" / "mine"
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert run_folder(tmp_path, "demo") == run_folder(tmp_path, "demo") == tmp_path / "demo" / "slurm-17"


def test_last_checkpoint_only_where_there_is_one(tmp_path):
    assert last_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "last.ckpt"
