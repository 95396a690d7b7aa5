"""The values of a training by step: one row per logging step, the same whether the run was interrupted or not."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from morphoclip.files import write_atomically
from morphoclip.training.watched import watched

STEP, EPOCH = "step", "epoch"


class Curves(pl.Callback):
    """Sends what a method and callbacks log to all loggers, every `trainer.log_every_n_steps` optimizer steps.

    A row holds the means of the values logged since the row before, and `step`, the number of optimizer steps done. Values
    not yet sent are part of the checkpoint. Those of an epoch's end are added to the row of its last step.
    """

    def __init__(self) -> None:
        self._step = self._values = -1
        self._unsent: dict[str, tuple[float, int]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        watched(pl_module).logged = {**self._unsent}
        self._values = _count(self._unsent)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if trainer.global_step != self._step:  # else gradients are being accumulated
            self._step = trainer.global_step
            if self._step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # set by Lightning, not declared
                self._send(trainer, pl_module)
        self._unsent = watched(pl_module).logged
        self._values = _count(self._unsent)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _count(watched(pl_module).logged) > self._values:
            self._send(trainer, pl_module)
        self._unsent = watched(pl_module).logged

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The values since the last row, where a training ends between two: early, or after an odd number of steps."""
        if watched(pl_module).logged:
            self._send(trainer, pl_module)

    def _send(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logged = watched(pl_module).logged
        row = {name: float(total) / count for name, (total, count) in logged.items()}
        logged.clear()
        for logger in trainer.loggers:
            logger.log_metrics({EPOCH: trainer.current_epoch, **row}, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        return {name: [float(total), count] for name, (total, count) in self._unsent.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._unsent = {name: (total, count) for name, (total, count) in state_dict.items()}


def _count(logged: Mapping[str, tuple[Any, int]]) -> int:
    """Number of values logged and not yet sent."""
    return sum(count for _, count in logged.values())


class CSVCurves(Logger):
    """A table with one row per step, `<save_dir>/metrics.csv`; a run that goes on adds to it.

    Each row is written when it is logged, so that a killed run loses none. Rows of the same step are merged.

    Args:
        save_dir: folder of the file.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._last: dict[str, Any] = {}
        self._last_at = 0  # offset of the last row in the file

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def save(self) -> None:
        """Sync the file to disk, as checkpoints are."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def cut(self, step: int) -> None:
        """Keep the rows up to `step`, the step that a run goes on from."""
        if self.path.is_file():
            self._write(row for row in read_rows(self.path) if int(row[STEP]) <= step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {STEP: step, **metrics}
        if self._last.get(STEP) == str(step):
            row = {**self._last, **row}
        new = [name for name in row if name not in self._columns]
        if new or not self.path.is_file():
            before = [] if not self.path.is_file() else [r for r in read_rows(self.path) if r[STEP] != str(step)]
            self._columns = [*self._columns, *new]
            self._write([*before, row])
            return
        with self.path.open("r+", newline="") as file:
            file.seek(self._last_at if self._last.get(STEP) == str(step) else file.seek(0, io.SEEK_END))
            self._last_at = file.tell()
            csv.DictWriter(file, self._columns).writerow(row)
            file.truncate()
        self._last = {name: str(value) for name, value in row.items()}

    def _write(self, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
        """Write the file anew with these rows."""
        kept = list(rows)
        self._columns = self._columns or list(dict.fromkeys(name for row in kept for name in row)) or [STEP]
        with write_atomically(self.path) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(kept[:-1])
            self._last_at = file.tell()
            writer.writerows(kept[-1:])
        self._last = {name: str(value) for name, value in kept[-1].items()} if kept else {}


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table of curves, without a last one that was cut off in the middle."""
    text = Path(path).read_text()
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
