"""What callbacks read of the method they watch and of its data."""

from __future__ import annotations

from typing import Any, Protocol, cast

import pytorch_lightning as pl
from torch import Tensor

from morphoclip.batch import Batch


class Watched(Protocol):
    """A method, as far as callbacks look at it (`methods.base.Method`)."""

    collapse: dict[str, Tensor]

    def export_encoder(self) -> Any: ...

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]: ...


def watched(pl_module: pl.LightningModule) -> Watched:
    """The module a callback is given, as the method it is."""
    return cast(Watched, pl_module)


def datamodule_of(trainer: pl.Trainer) -> Any:
    """The data module of a fit; Lightning sets the attribute and does not declare it."""
    return trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
