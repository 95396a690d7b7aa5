"""A disk that fills up while a checkpoint is saved: it is said, training goes on, and the run can go on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from tests.reliability.commands import ROOT, TINY, command, environment, weights

SCRIPT = Path(__file__).with_name("full_disk.sh")


def may_mount() -> bool:
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    )
    return done.returncode == 0


def test_a_full_disk_leaves_the_last_whole_checkpoint_and_the_run_goes_on(outputs, straight):
    if not may_mount():
        pytest.skip("no file system may be mounted here; tests/test_checkpoints.py limits the size of files instead")
    run = outputs / "demo/full"
    start = command(*TINY, f"output_dir={outputs}", "run_id=full", "callbacks.checkpoint.every_n_train_steps=5")
    done = subprocess.run(
        ["unshare", "--mount", "sh", SCRIPT, run, *start],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "the checkpoint of step 10 was not saved" in output  # after those of steps 5 and 8
    assert "No space left on device" in output
    assert "first start: status 1" in output  # nothing newer could be saved at the end
    assert [line for line in output.splitlines() if line.startswith("left: ")] == [
        "left: last.ckpt",
        "left: previous.ckpt",
    ]
    assert "demo/full goes on at step 8" in output
    found = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert [name for name, value in weights(straight).items() if not torch.equal(value, found[name])] == []
