"""Lightning callbacks shared by all methods."""

from __future__ import annotations

import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

from morphoclip.distributed import world_size
from morphoclip.progress import SECONDS_PER_LINE, is_terminal
from morphoclip.training.watched import datamodule_of


class Progress(TQDMProgressBar):
    """Lightning's bar on a terminal; in a log file one line every `seconds` with step, loss and speed."""

    def __init__(self, refresh_rate: int = 5, seconds: float = SECONDS_PER_LINE) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.seconds = seconds
        self._last_line = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not is_terminal():
            self.disable()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._last_line = time.monotonic()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        done = trainer.global_step == trainer.estimated_stepping_batches
        late = time.monotonic() - self._last_line >= self.seconds
        if not is_terminal() and trainer.is_global_zero and (late or done):
            self._last_line = time.monotonic()
            shown = [f"{name.split('/')[-1]} {value:.4g}" for name, value in trainer.progress_bar_metrics.items()]
            of = f"/{trainer.estimated_stepping_batches:.0f}"
            print(", ".join([f"step {trainer.global_step}{of}", f"epoch {trainer.current_epoch}", *shown]), flush=True)


class Speed(pl.Callback):
    """Logs and shows `speed/samples_per_s` (all ranks) and `speed/data_wait`, the fraction of time spent waiting for batches.

    If the data module counts skipped damaged samples (`skipped`), `data/skipped` is their number on rank 0. Samples are
    the items of a batch: crops, bags or pairs. On a GPU, steps run asynchronously: while the CPU waits for a batch the
    card may still be busy with the step before, so that `data_wait` is an upper bound of what is lost.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()  # `on_train_epoch_start` is not called when resuming in mid-epoch

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
            skipped = getattr(datamodule_of(trainer), "skipped", 0)  # of our data modules
            if skipped:
                shown["data/skipped"] = float(skipped)
            pl_module.log_dict(shown, batch_size=len(batch), prog_bar=True)
            self._reset()
