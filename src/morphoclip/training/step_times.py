"""Seconds that a process spends in the parts of a training step."""

from __future__ import annotations

import time

import pytorch_lightning as pl
from pytorch_lightning.profilers import Profiler

DATA, COPY, STEP = "data", "copy", "step"


class StepTimes(Profiler):
    """A profiler that adds up the parts of training steps, and passes everything on to another profiler.

    The parts are those that Lightning marks for its profilers: `data`, the time inside `next()` of the loader; `copy`,
    moving a batch to the device; `step`, forward, backward and optimizer.

    Attributes:
        seconds: part -> seconds since the beginning.
    """

    def __init__(self, other: Profiler) -> None:
        super().__init__()
        self.other = other
        self.seconds = dict.fromkeys((DATA, COPY, STEP), 0.0)
        self._began: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        self.other.start(action_name)
        part = _part(action_name)
        if part is not None:
            self._began[part] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        part = _part(action_name)
        if part is not None:
            self.seconds[part] += time.perf_counter() - self._began.pop(part)
        self.other.stop(action_name)

    def setup(self, stage: str, local_rank: int | None = None, log_dir: str | None = None) -> None:
        self.other._lightning_module = self.__dict__.get("_lightning_module")  # type: ignore[attr-defined]  # by Trainer
        self.other.setup(stage, local_rank, log_dir)
        super().setup(stage, local_rank, log_dir)

    def teardown(self, stage: str | None) -> None:
        self.other.teardown(stage)
        super().teardown(stage)

    def describe(self) -> None:
        self.other.describe()

    def summary(self) -> str:
        return self.other.summary()


def step_times_of(trainer: pl.Trainer) -> StepTimes:
    """The trainer's profiler, which becomes a `StepTimes` around the one that it has if it is none."""
    profiler = trainer.profiler  # type: ignore[attr-defined]  # set by Lightning, not declared
    if not isinstance(profiler, StepTimes):
        profiler = trainer.profiler = StepTimes(profiler)  # type: ignore[attr-defined]
    return profiler


def _part(action_name: str) -> str | None:
    """The part of a step that an action of Lightning is, if it is one."""
    if action_name == "run_training_batch":
        return STEP
    if action_name == "[_TrainingEpochLoop].train_dataloader_next":
        return DATA
    return COPY if action_name.startswith("[Strategy]") and action_name.endswith(".batch_to_device") else None
