"""End a training that no longer gets better by a value that is measured now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from morphoclip.training.watched import watched


class EarlyStopping(pl.Callback):
    """Ends the training after `patience` measurements in a row without a better value, by epochs or by steps.

    Lightning's callback of this name asks at the ends of epochs only, and counts the same value again where nothing was
    measured in between. The state is part of the checkpoint.

    Args:
        monitor: name of a value of `Validation` or `OnlineKNN`, e.g. val/loss; None for no early stopping.
        patience: measurements without improvement.
        mode: "min" or "max": what is better.
        min_delta: smallest improvement that counts.

    Raises:
        ValueError: `mode` is neither.
    """

    def __init__(
        self, monitor: str | None = None, patience: int = 10, mode: str = "min", min_delta: float = 0.0
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"callbacks.early_stopping.mode={mode!r}: give max or min")
        self.monitor, self.patience, self.min_delta = monitor, patience, min_delta
        self.sign = 1 if mode == "max" else -1
        self.best, self.waited, self._seen = -math.inf, 0, -1

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self._judge(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._judge(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.monitor is not None and self._seen < 0:
            rank_zero_warn(
                f"callbacks.early_stopping.monitor={self.monitor} was never measured; measured were "
                f"{sorted(name for name in trainer.callback_metrics if name.startswith('val/'))}"
            )

    def _judge(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        measured = watched(pl_module).measured_at
        if self.monitor is None or measured != trainer.global_step or measured == self._seen:
            return
        found = trainer.callback_metrics.get(self.monitor)
        if found is None:
            return
        self._seen, value = measured, self.sign * float(found)
        if value > self.best + self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.should_stop = True
            rank_zero_info(
                f"step {measured}: {self.monitor} was not better than {self.sign * self.best:.4g} in {self.waited} "
                "measurements: the training ends (callbacks.early_stopping)"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "seen": self._seen}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.best, self.waited, self._seen = state_dict["best"], state_dict["waited"], state_dict["seen"]
