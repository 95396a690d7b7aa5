"""The folder of a run: the same for all ranks, and found again after a preemption."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

from morphoclip.training.launch import from_rank_zero


def run_folder(output_dir: str | Path, experiment: str, run_id: str | None = None) -> Path:
    """`<output_dir>/<experiment>/<run id>/`, made here.

    The id is `run_id` if given, else the Slurm job's (so a requeued job finds its folder), else a new one from the clock.
    Rank 0 chooses it for all ranks.
    """
    fresh = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    slurm = os.environ.get("SLURM_JOB_ID")
    folder = Path(output_dir) / experiment / from_rank_zero(run_id or (f"slurm-{slurm}" if slurm else fresh))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to resume from; None if the run was not started before."""
    checkpoint = folder / "checkpoints" / "last.ckpt"
    return checkpoint if checkpoint.is_file() else None
