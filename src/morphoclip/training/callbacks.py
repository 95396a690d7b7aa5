"""Lightning callbacks shared by all methods."""

from __future__ import annotations

import time

import pytorch_lightning as pl

from morphoclip.distributed import world_size


class Speed(pl.Callback):
    """Logs and shows `speed/samples_per_s` (all ranks) and `speed/data_wait`, the share of time waiting for batches.

    Where the data module counts damaged samples that it skipped (`skipped`), `data/skipped` is their number on rank 0.
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
            shown = {
                "speed/samples_per_s": world_size() * self._samples / elapsed,
                "speed/data_wait": self._waited / elapsed,
            }
            skipped = getattr(trainer.datamodule, "skipped", 0)
            if skipped:
                shown["data/skipped"] = float(skipped)
            pl_module.log_dict(shown, batch_size=len(batch), prog_bar=True)
            self._reset()
