"""The end of a trial of a sweep whose values are worse than those of other trials: the sweep asks for it by a file."""

from __future__ import annotations

import time
from pathlib import Path

import pytorch_lightning as pl

from morphoclip.training.agreement import Agreement
from morphoclip.training.interrupts import PRUNED, Interrupted

# In the folder of a run that is a trial: what the sweep wrote of it, and its request to end.
TRIAL, REQUEST = "trial.json", "prune.json"


class Pruning(pl.Callback):
    """Ends a trial at the next optimizer step after the sweep has written `prune.json` into the run's folder.

    The sweep reads the trial's values from `logs/metrics.csv`, so that only the sweep itself opens the study: trials may
    run on other nodes, where a database on a shared file system could not be written to safely.

    Args:
        folder: the run's folder.
        seconds: time between two looks for the file.

    Raises:
        Interrupted: the request came; on all ranks at the same step, with the status `PRUNED`.
    """

    def __init__(self, folder: str | Path, seconds: float = 1.0) -> None:
        self.request = Path(folder) / REQUEST
        self.seconds = seconds
        self._agreement = Agreement()
        self._looked_at, self._step = 0.0, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._agreement, self._step = Agreement(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        asked = self._agreement.ask(trainer.is_global_zero and self._is_requested(), device=pl_module.device)
        if asked[0]:
            if trainer.is_global_zero:
                self.request.unlink(missing_ok=True)  # so that `resume=` can go on with the run later
            raise Interrupted(PRUNED)

    def _is_requested(self) -> bool:
        if time.monotonic() - self._looked_at < self.seconds:
            return False
        self._looked_at = time.monotonic()
        return self.request.is_file()


def pruning_of(folder: str | Path) -> list[pl.Callback]:
    """The callbacks of a run that is a trial of a sweep; none for other runs."""
    return [Pruning(folder)] if (Path(folder) / TRIAL).is_file() else []
