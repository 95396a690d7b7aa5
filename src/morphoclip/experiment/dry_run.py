"""`--dry-run`: the first screen with hours from a few real steps and the disk a run needs; nothing of it stays."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from morphoclip.distributed import mean_over_ranks
from morphoclip.experiment.changes import check_changes
from morphoclip.experiment.first_screen import checkpoint_bytes, first_screen, in_bytes, in_time, plural, saver_of
from morphoclip.experiment.runs import Start, find_run, read_record
from morphoclip.training.checkpointing import Checkpoints

if TYPE_CHECKING:
    from morphoclip.data import CellDataModule

WARMUP, FEWEST, MOST, SECONDS = 3, 3, 30, 15.0  # steps that are not timed; steps timed, in about so many seconds
ROW_BYTES = 500  # of a row of the curves, in all loggers together


def dry_start(config: DictConfig, composed: dict[str, Any], held: ExitStack) -> Start:
    """A temporary folder instead of the run's, and the checkpoint the run would go on from; for rank 0 only.

    Args:
        held: removes the folder.

    Raises:
        FileNotFoundError, ValueError: as `runs.open_run`.
    """
    from morphoclip.checkpoints import last_checkpoint

    output, checkpoint = Path(config.output_dir), None
    named = None if config.run_id is None else output / config.name / config.run_id
    folder = find_run(output, str(config.resume)) if config.resume is not None else named
    if folder is not None and folder.is_dir():
        before = read_record(folder)
        if before.get("config"):
            check_changes(before["config"], composed)
        checkpoint = last_checkpoint(folder)
    made = [path for path in (output, *output.absolute().parents) if not path.exists()]
    output.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".dry-run-", dir=output))  # on the disk that the run will use

    def remove() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in made:  # from the innermost
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    held.callback(remove)
    print("dry run: nothing of it stays", flush=True)
    return Start(temporary, checkpoint)


def data_folder(data: DictConfig, temporary: Path) -> str:
    """Where the data of a run lie: where they are, or a temporary folder if they were to be made first."""
    parts = [
        data.root,
        *([data.features.folder] if "features" in data else []),
        *([data.table.folder] if "table" in data else []),
    ]
    if all(Path(part).exists() for part in parts):
        return str(data.folder)
    print(
        f"the data do not exist yet: made in a temporary folder, for this dry run only ({data.folder} stays as it is)"
    )
    return str(temporary / "data")


def dry_run(config: DictConfig, checkpoint: Path | None) -> None:
    """Print the screen of a training, the hours it takes by a few timed steps, and the disk it needs."""
    from morphoclip.experiment.fit import callbacks_of, make_loggers, make_trainer, open_loader, starting_method
    from morphoclip.experiment.rotation import first_turn

    pl.seed_everything(config.seed, verbose=False)
    loader: CellDataModule
    if config.get("rotation"):  # its trainings have neither callbacks nor loggers
        config, trainings = first_turn(config)
        loader = open_loader(config)
        planned = make_trainer(config, loader, [], [])
    else:
        loader, trainings = open_loader(config), 1
        # Its callbacks and loggers are made, so that mistakes in them are found, but not used.
        planned = make_trainer(config, loader, callbacks_of(config), make_loggers(config, checkpoint))
    method, _ = starting_method(config, loader, checkpoint)
    sample = TimedSample(config, planned, trainings)
    trainer = make_trainer(config, loader, [sample], [])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks used")
        trainer.fit(method, datamodule=loader, ckpt_path=checkpoint)
    if trainer.is_global_zero:
        print("\n".join(sample.lines), flush=True)


class TimedSample(pl.Callback):
    """Prints the first screen, times steps after the first few, and ends the training.

    Args:
        config: config of the run.
        planned: the trainer of the run itself, whose loggers and checkpoints are described.
        trainings: how many of this length the run has.

    Attributes:
        lines: on hours and disk, once enough steps are timed.
    """

    def __init__(self, config: DictConfig, planned: pl.Trainer, trainings: int = 1) -> None:
        self.config, self.planned, self.trainings = config, planned, trainings
        self.lines: list[str] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            print("\n".join(first_screen(trainer, pl_module, self.config, self.planned)), flush=True)
        self.first = self.step = trainer.global_step
        self.left = int(trainer.estimated_stepping_batches) - self.first
        self.warmup = max(0, min(WARMUP, self.left - 1))
        self.timed = 1
        self.began = _now(pl_module.device)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if trainer.global_step == self.step:  # gradients are being accumulated
            return
        self.step = trainer.global_step
        done = self.step - self.first - self.warmup
        if done == 0:
            self.began = _now(pl_module.device)
        elif done == 1:
            took = {"step": _now(pl_module.device) - self.began}
            seconds = float(mean_over_ranks(took, pl_module.device)["step"])  # the same number of steps on all ranks
            self.timed = min(max(FEWEST, min(MOST, round(SECONDS / seconds))), self.left - self.warmup)
        if done >= self.timed:
            self.lines = self._lines(trainer, pl_module, (_now(pl_module.device) - self.began) / done)
            trainer.should_stop = True

    def _lines(self, trainer: pl.Trainer, method: pl.LightningModule, seconds: float) -> list[str]:
        total = seconds * self.left * self.trainings
        steps = plural(self.left, "step") if self.trainings == 1 else f"{self.trainings} x {plural(self.left, 'step')}"
        hours = (
            f"{total / 3600:.2g} h ({in_time(total)}): {steps} of {seconds:.3g} s by "
            f"{plural(self.timed, 'timed step')}; validation, checkpoints and scoring are not in it"
        )
        saver = saver_of(self.planned)
        count = 0 if saver is None else checkpoints_kept(saver, trainer)
        size, shared = checkpoint_bytes(method)
        rows = self.left / trainer.log_every_n_steps if self.planned.loggers else 0  # type: ignore[attr-defined]
        needed = count * size + (shared if count else 0) + rows * ROW_BYTES
        free = shutil.disk_usage(self.config.folder).free
        disk = f"{in_bytes(needed)} needed ({plural(count, 'checkpoint')} and logs), {in_bytes(free)} free"
        if needed > free:
            disk += ": not enough, keep fewer checkpoints (callbacks.checkpoint) or set another output_dir"
        return [f"{'time':<11} {hours}", f"{'disk':<11} {disk}"]


def checkpoints_kept(saver: Checkpoints, trainer: pl.Trainer) -> int:
    """Checkpoints on disk at the end: the last, the one before, one being written, the best, and those of epochs."""
    count = 3 + (saver.monitor is not None)
    if saver.keep_every_n_epochs and math.isfinite(trainer.num_training_batches):
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        count += int(trainer.estimated_stepping_batches) // per_epoch // saver.keep_every_n_epochs
    return count


def _now(device: torch.device) -> float:
    """The time once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
