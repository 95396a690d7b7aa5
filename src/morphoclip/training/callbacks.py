"""Lightning callbacks shared by all methods."""

from __future__ import annotations

import resource
import sys
import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor

from morphoclip.distributed import gather_rows, world_size
from morphoclip.progress import SECONDS_PER_LINE, is_terminal
from morphoclip.training.step_times import DATA, step_times_of
from morphoclip.training.watched import datamodule_of, watched


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
    """Logs how fast a training is and where the time of a step goes, every `every_n_steps` optimizer steps.

    Means over the batches since the values before, in this process; on several ranks the mean over ranks.

    - `speed/samples_per_s`: samples (crops, bags or pairs) per second of all ranks together.
    - `speed/data_wait`: fraction of the time spent inside `next()` of the loader.
    - `speed/data_ms`, `copy_ms`, `step_ms`, `callbacks_ms`: milliseconds per batch waiting for the loader, moving the batch
      to the device, in forward, backward and optimizer, and in all the rest (callbacks, checkpoints, loggers). A GPU works
      asynchronously: the process waits for it wherever it first needs a result, mostly in `step` and `copy`.
    - `speed/peak_memory_gib`: largest memory so far, of the rank that needed most: on a GPU that of torch's tensors, on a
      CPU the resident memory of the process.
    - on several ranks `speed/samples_per_s_rank_min` and `_rank_mean`, `speed/data_wait_min` and `_max`: of one rank.
    - `data/skipped`: damaged samples skipped on rank 0, if the data module counts them (`skipped`).

    The ranks exchange their values once in `every_n_steps` steps. Measurements (`Validation`, `OnlineKNN`) are not counted.

    Args:
        every_n_steps: optimizer steps between two values; None for `trainer.log_every_n_steps`.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._times = step_times_of(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step
        self._reset(pl_module)  # `on_train_epoch_start` is not called when resuming in mid-epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset(pl_module)

    def _reset(self, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter() - watched(pl_module).measuring_s
        self._before = dict(self._times.seconds)
        self._samples = self._batches = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self._samples += len(batch)
        self._batches += 1
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        if self._step % (self.every_n_steps or trainer.log_every_n_steps):
            return
        elapsed = time.perf_counter() - watched(pl_module).measuring_s - self._since
        parts = {name: total - self._before[name] for name, total in self._times.seconds.items()}
        parts["callbacks"] = elapsed - sum(parts.values())
        own = {
            "samples_per_s": self._samples / elapsed,
            "data_wait": parts[DATA] / elapsed,
            "peak_memory_gib": peak_memory(pl_module.device) / 2**30,
            **{f"{name}_ms": 1000 * seconds / self._batches for name, seconds in parts.items()},
        }
        shown = {f"speed/{name}": value for name, value in of_all_ranks(own, pl_module.device).items()}
        on_bar = {name: shown.pop(name) for name in ("speed/samples_per_s", "speed/data_wait")}
        skipped = getattr(datamodule_of(trainer), "skipped", 0)  # of our data modules
        if skipped:
            on_bar["data/skipped"] = float(skipped)
        pl_module.log_dict(on_bar, batch_size=len(batch), prog_bar=True)
        pl_module.log_dict(shown, batch_size=len(batch))
        self._reset(pl_module)


def of_all_ranks(own: dict[str, float], device: torch.device) -> dict[str, Tensor | float]:
    """The values of all ranks as one, by one collective: sums of rates, largest memory, means of all else.

    On several ranks with the extremes of `samples_per_s` and `data_wait` over ranks.
    """
    ranks = world_size()
    if ranks == 1:
        return {**own}
    rows = gather_rows(torch.tensor([list(own.values())], dtype=torch.float32, device=device))
    values = dict(zip(own, rows.unbind(dim=1), strict=True))
    found: dict[str, Tensor | float] = {name: of_ranks.mean() for name, of_ranks in values.items()}
    rates, waits = values["samples_per_s"], values["data_wait"]
    return found | {
        "samples_per_s": rates.sum(),
        "samples_per_s_rank_min": rates.min(),
        "samples_per_s_rank_mean": rates.mean(),
        "data_wait_min": waits.min(),
        "data_wait_max": waits.max(),
        "peak_memory_gib": values["peak_memory_gib"].max(),
    }


def peak_memory(device: torch.device) -> int:
    """Largest memory so far in bytes: of torch's tensors on a GPU, else the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
