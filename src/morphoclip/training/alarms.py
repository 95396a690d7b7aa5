"""A warning in the log when a run collapses, from the monitors of `Method.report`."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from morphoclip.training.watched import watched


class CollapseAlarm(pl.Callback):
    """Warns, and logs `collapse/alarm` as 1, when a monitor is beyond its threshold `patience` times in a row.

    New encoders may start beyond a threshold, so a single reading is not enough. After a recovery the alarm can be raised
    again. The thresholds separate useless encoders from useful ones, not good from mediocre:

    Args:
        rank_me: effective rank of the embeddings at or below this: all crops are on a line.
        mean_cosine: mean cosine between crops at or above this: all crops have the same embedding.
        prototypes: effective number of prototypes in use at or below this: all crops get the same prototype.
        max_probability: mean largest target probability at or below this many times 1/K: targets are uniform.
        patience: readings in a row; there is one every `monitor_every` steps of the method.
    """

    def __init__(
        self,
        rank_me: float = 1.5,
        mean_cosine: float = 0.99,
        prototypes: float = 1.5,
        max_probability: float = 1.5,
        patience: int = 5,
    ) -> None:
        self.limits = {
            "rank_me": rank_me,
            "mean_cosine": mean_cosine,
            "prototypes": prototypes,
            "max_probability": max_probability,
        }
        self.patience = patience
        self.streak = dict.fromkeys(self.limits, 0)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        method = watched(pl_module)
        readings = method.collapse
        if not readings:
            return
        method.collapse = {}
        for what, bad in self.judge({name: float(value) for name, value in readings.items()}).items():
            self.streak[what] = self.streak[what] + 1 if bad else 0
            if self.streak[what] == self.patience:
                rank_zero_warn(
                    f"step {trainer.global_step}: the run collapses, {what} = {float(readings[what]):.3g} "
                    f"(limit {self.limits[what]:g}) {self.patience} times in a row; see docs/methods for what to change"
                )
        pl_module.log("collapse/alarm", float(max(self.streak.values()) >= self.patience), batch_size=len(batch))

    def judge(self, readings: dict[str, float]) -> dict[str, bool]:
        """Whether each reading is beyond its limit; `max_probability` is in units of 1/K."""
        above = {"mean_cosine"}
        return {
            name: (value >= self.limits[name] if name in above else value <= self.limits[name])
            for name, value in readings.items()
            if name in self.limits
        }
