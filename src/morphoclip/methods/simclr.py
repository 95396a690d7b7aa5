"""SimCLR: contrast two augmented views of a crop with all other crops (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from morphoclip.batch import Batch
from morphoclip.methods.base import Method, build
from morphoclip.methods.crops import as_crops, first_crops, framed
from morphoclip.models import ProjectionHead

PURPOSES = ("view 1", "view 2")


class SimCLR(Method):
    """Chen et al. 2020 with Kim et al.'s head (D-512-128, ReLU, no batch norm).

    Build it from configs as `hydra.utils.instantiate(config.method)`: configs/method/simclr.yaml refers to the encoder,
    optimizer and augment groups and passes all of them as plain dicts.

    Args:
        head: widths of the projection head after the encoder's own.
        loss: `_target_` of a loss between two views.
        encoder, optimizer, augment, seed, monitor_every: see `Method`.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        augment: Mapping[str, Any] | None,
        loss: Mapping[str, Any],
        head: Sequence[int] = (512, 128),
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        super().__init__(encoder, optimizer, augment, seed, monitor_every)
        self.save_hyperparameters()
        self.head = ProjectionHead((self.encoder.embed_dim, *head))
        self.loss = build(loss)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        features = [
            self.encoder(view, shown=self.sampled_channels(len(view), batch_idx, purpose))
            for purpose, view in zip(PURPOSES, self.views(as_crops(batch), batch_idx, *PURPOSES), strict=True)
        ]
        loss = self.loss(*(self.head(f) for f in features))
        return self.report(loss, features[0], batch)

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Two rows per crop: its views."""
        views = self.views(first_crops(batch, 4), batch_idx, *PURPOSES)
        return {"views": framed(self.encoder, torch.stack(views, dim=1).flatten(0, 1))}
