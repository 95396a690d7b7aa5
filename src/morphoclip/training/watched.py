"""The interface of methods and data modules that callbacks use."""

from __future__ import annotations

from typing import Any, Protocol, cast

import pytorch_lightning as pl
from torch import Tensor

from morphoclip.batch import Batch

Metrics = dict[str, Any]  # name in the log, without `val/` -> a torchmetrics.Metric


class Watched(Protocol):
    """The part of a method's interface (`methods.base.Method`) that callbacks use."""

    collapse: dict[str, Tensor]
    logged: dict[str, tuple[Any, int]]
    is_sharded: bool
    is_validating: bool
    measured_at: int
    measuring_s: float

    def export_encoder(self) -> Any: ...

    def validation_metrics(self) -> Metrics: ...

    def validate(self, batch: Batch, batch_idx: int, metrics: Metrics) -> Tensor: ...

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]: ...


def watched(pl_module: pl.LightningModule) -> Watched:
    """A callback's module, typed as a method."""
    return cast(Watched, pl_module)


def datamodule_of(trainer: pl.Trainer) -> Any:
    """The data module of a fit; Lightning sets this attribute without declaring it."""
    return trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
