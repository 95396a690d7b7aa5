"""Where a run of a grid (`-m`) lies: in a folder of its own in the grid's folder."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

GRID = "sweep.json"  # in the grid's folder: its runs, and the job that started it


def folder_in_grid() -> Path | None:
    """The folder of this run in the grid that it belongs to; None for a run that was started by itself."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    if OmegaConf.is_missing(hydra.job, "num") or not (Path(hydra.sweep.dir) / GRID).is_file():
        return None
    return Path(hydra.sweep.dir) / str(hydra.sweep.subdir)
