"""Callbacks that measure a method now and then: before training, every n epochs and every n steps."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from torch import nn

from morphoclip.training.watched import watched


class Measurement(pl.Callback):
    """Base of callbacks that log `scores`: before training, at the ends of some epochs and after some steps.

    Args:
        every_n_epochs: epochs between two measurements, the last one included; None for none at the end of epochs.
        every_n_steps: optimizer steps between two, where an epoch takes days; None for none by steps.
    """

    def __init__(self, every_n_epochs: int | None = 1, every_n_steps: int | None = None) -> None:
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self._step = self._measured = -1

    @abstractmethod
    def scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Name -> value, equal on all ranks, which all call it."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        if trainer.global_step == 0:
            scores = self.scores(trainer, pl_module)
            for logger in trainer.loggers if scores else []:  # `self.log` is not available in this hook
                logger.log_metrics(scores, step=0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        if self.every_n_steps and self._step % self.every_n_steps == 0:
            self._measure(trainer, pl_module, len(batch))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if (last or due) and self._measured != trainer.global_step:
            self._measure(trainer, pl_module, 1)

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch_size: int) -> None:
        began, method = time.perf_counter(), watched(pl_module)
        self._measured = method.measured_at = trainer.global_step
        pl_module.log_dict(self.scores(trainer, pl_module), batch_size=batch_size)
        method.measuring_s += time.perf_counter() - began


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each part has the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
