"""Lightning callbacks shared by all methods."""

from __future__ import annotations

import time

import pytorch_lightning as pl

from morphoclip.distributed import world_size


class Speed(pl.Callback):
    """Logs `speed/samples_per_s` (all ranks) and `speed/data_wait`, the share of time spent waiting for batches.

    Samples are what a method's batch holds: crops, bags or pairs. On a GPU steps run behind the clock; averages over
    `every_n_steps` batches even that out.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()  # a run resumed in mid-epoch starts no epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()

    def _reset(self) -> None:
        self._since = self._last = time.perf_counter()
        self._waited = 0.0
        self._samples = 0
        self._batches = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch, batch_idx: int) -> None:
        self._waited += time.perf_counter() - self._last

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self._last = time.perf_counter()
        self._samples += len(batch)
        self._batches += 1
        if self._batches == self.every_n_steps:
            elapsed = self._last - self._since
            pl_module.log("speed/samples_per_s", world_size() * self._samples / elapsed, batch_size=len(batch))
            pl_module.log("speed/data_wait", self._waited / elapsed, batch_size=len(batch))
            self._reset()
