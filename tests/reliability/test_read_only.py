"""A dataset on a read-only file system is trained on with a holdout; the run's own files hold what is derived."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from tests.reliability.commands import ROOT, command
from tests.reliability.test_full_disk import may_mount

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/written" 2>/dev/null && exec "$@"'


def test_a_read_only_dataset_is_trained_on_with_a_holdout(outputs, straight, tmp_path):
    if not may_mount():
        pytest.skip("no file system may be mounted here")
    dataset = outputs / "data/simulated-fixed-0/dataset"
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    start = command(
        *["data=dataset", f"data.root={dataset}", "data.holdout={batches: [SIM_batch3], fraction: 0.5, seed: 0}"],
        *["data.loader.sampler=bags", "data.loader.global_batch_size=4", "data.loader.num_workers=0", "score=none"],
        *["+data.loader.sampler_options={bag_size: 2, steps_per_epoch: 2}", "trainer.max_steps=2"],
        *[f"output_dir={tmp_path}", "run_id=mine", "name=mine"],
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", READ_ONLY, dataset, *start],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = np.load(tmp_path / "mine/mine/training_rows.npy")
    assert len(rows) > 0
    assert (tmp_path / "mine/mine/encoder/model.safetensors").is_file()
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before
