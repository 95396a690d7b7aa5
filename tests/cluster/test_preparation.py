"""slurm/prepare.sbatch in a real Slurm: one dataset, and an array of them."""

from __future__ import annotations

from morphoclip.data import ShardDataset
from tests.reliability.commands import ROOT

SCRIPT = ROOT / "slurm/prepare.sbatch"


def test_a_job_prepares_a_dataset(slurm, plate_of_tiffs, tmp_path):
    arguments = ["--images", plate_of_tiffs, "--crop-size", "32", "--out", tmp_path / "out"]
    job = slurm.submit("--cpus-per-task=2", SCRIPT, *arguments, folder=ROOT)
    slurm.wait(job, "COMPLETED")
    assert len(ShardDataset(tmp_path / "out")) == 24


def test_an_array_prepares_the_dataset_of_each_line(slurm, plate_of_tiffs, tmp_path):
    lines = [
        f"--images '{plate_of_tiffs}' --crop-size {size} --out '{tmp_path}/crops of {size}'\n" for size in (16, 32)
    ]
    (tmp_path / "datasets.txt").write_text("".join(lines))
    job = slurm.submit("--cpus-per-task=2", "--array=1-3", SCRIPT, tmp_path / "datasets.txt", folder=ROOT)
    for task, size in ((1, 16), (2, 32)):
        slurm.wait(f"{job}_{task}", "COMPLETED")
        assert ShardDataset(tmp_path / f"crops of {size}").shape == (5, size, size)
    slurm.wait(f"{job}_3", "FAILED")
    assert slurm.output(job, 3) == f"error: {tmp_path / 'datasets.txt'} has no line 3\n"
