"""When checkpoints are saved, which are kept, and how Lightning writes and reads them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

from morphoclip.checkpoints import LAST, read_checkpoint, write_checkpoint
from morphoclip.files import write_atomically
from morphoclip.training.agreement import Agreement
from morphoclip.training.interrupts import Interrupted, Interrupts
from morphoclip.training.watched import watched


class WholeCheckpoints(CheckpointIO):
    """Lightning's plugin for `morphoclip.checkpoints`.

    Attributes:
        error: why the last one could not be written; None if it was. Lightning calls the plugin on rank 0 only and then
            waits for all ranks, so that an error raised here would leave the others waiting.
    """

    def __init__(self) -> None:
        self.error: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.error = None
        try:
            write_checkpoint(checkpoint, path)
        except OSError as error:
            self.error = error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Saves `last.ckpt` by time, at an epoch's end, at the training's end and when the run is interrupted.

    The one before is kept as `previous.ckpt`. If one cannot be written, e.g. on a full disk, the training goes on and the
    last whole one stays. `best.ckpt` and those of `keep_every_n_epochs` are further names of the same file, which takes
    no more space while it is the last.

    Args:
        dirpath: folder of the checkpoints.
        every_minutes: time between two; None for none by time.
        every_n_train_steps: optimizer steps between two; None for none by steps.
        every_epoch: save at each epoch's end.
        keep_every_n_epochs: keep the checkpoint of every n-th epoch as `epoch<number>.ckpt`.
        monitor: name of a logged value (see logs/metrics.csv) by which the best checkpoint is kept as `best.ckpt`.
        mode: "max" or "min": what is best.

    Attributes:
        interrupts: asked after each step; set before fitting.

    Raises:
        ValueError: `mode` is neither.
        Interrupted: after a step at which some rank was interrupted, on all ranks, once the checkpoint is saved.
    """

    def __init__(
        self,
        dirpath: str | Path,
        every_minutes: float | None = 15.0,
        every_n_train_steps: int | None = None,
        *,
        every_epoch: bool = True,
        keep_every_n_epochs: int | None = None,
        monitor: str | None = None,
        mode: str = "max",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"callbacks.checkpoint.mode={mode!r}: give max or min")
        self.folder = Path(dirpath)
        self.seconds = math.inf if every_minutes is None else 60 * every_minutes
        self.every_n_train_steps, self.every_epoch, self.keep_every_n_epochs = (
            every_n_train_steps,
            every_epoch,
            keep_every_n_epochs,
        )
        self.monitor, self.sign = monitor, 1 if mode == "max" else -1
        self.best: float | None = None
        self.interrupts: Interrupts | None = None
        self._agreement = Agreement()
        self._saved_at = time.monotonic()
        self._step = self._saved_step = -1
        self._due, self._status = False, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._agreement, self._saved_at = Agreement(), time.monotonic()
        self._step = self._saved_step = trainer.global_step
        if self.interrupts is not None:
            self.interrupts.listen()  # Lightning has installed its own handler of SIGTERM

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        late = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.seconds
        asked = self.interrupts.pending if self.interrupts is not None else None
        due, self._status = self._agreement.ask(late, asked.status if asked else 0, device=pl_module.device)
        by_step = self.every_n_train_steps and self._step % self.every_n_train_steps == 0
        self._due = bool(due or self._status or by_step)
        if not trainer.is_last_batch:  # else at the epoch's end, after what other callbacks do there
            best = watched(pl_module).measured_at == self._step and self._is_best(trainer)
            if self._due or best or self._step == trainer.max_steps:
                self.save(trainer)
            if best:
                self._keep(trainer, "best.ckpt")
            self._end_if_asked()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_last_batch:  # the end of a training in mid-epoch
            return
        epoch = trainer.current_epoch + 1
        keep = bool(self.keep_every_n_epochs) and epoch % cast(int, self.keep_every_n_epochs) == 0
        best = self._is_best(trainer)
        if self._due or self.every_epoch or keep or best:
            self.save(trainer)
            if keep:
                self._keep(trainer, f"epoch{epoch:04d}.ckpt")
            if best:
                self._keep(trainer, "best.ckpt")
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self._status:
            raise Interrupted(self._status)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._saved_step != trainer.global_step:
            self.save(trainer)
        if self.monitor is not None and self.best is None:
            rank_zero_warn(
                f"callbacks.checkpoint.monitor={self.monitor} was never logged, so there is no best.ckpt; logged were "
                f"{sorted(trainer.callback_metrics)}"
            )

    def save(self, trainer: pl.Trainer) -> None:
        """Save `last.ckpt`; a warning, not an error, if it cannot be written."""
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.folder / LAST, weights_only=False)
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if (error := self.failure(trainer)) is not None:
            rank_zero_warn(
                f"the checkpoint of step {trainer.global_step} was not saved ({error}); training goes on, and the last whole "
                "checkpoint stays: free some space"
            )

    @staticmethod
    def failure(trainer: pl.Trainer) -> OSError | None:
        """Why the last checkpoint could not be written (on rank 0); None if it was."""
        return getattr(trainer.strategy.checkpoint_io, "error", None)

    def _is_best(self, trainer: pl.Trainer) -> bool:
        """Whether the monitored value is better than all before, which `best` then holds."""
        value = None if self.monitor is None else trainer.callback_metrics.get(self.monitor)
        if (
            value is None
            or not math.isfinite(value)
            or (self.best is not None and self.sign * float(value) <= self.sign * self.best)
        ):
            return False
        self.best = float(value)
        return True

    def _keep(self, trainer: pl.Trainer, name: str) -> None:
        """Give the checkpoint just saved a further name."""
        if not trainer.is_global_zero or self.failure(trainer) is not None:
            return
        with write_atomically(self.folder / name) as partial:
            try:
                os.link(self.folder / LAST, partial)
            except OSError:  # a file system without hard links
                partial.write_bytes((self.folder / LAST).read_bytes())

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.best = state_dict["best"]
