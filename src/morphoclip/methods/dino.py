"""DINO: a student's global and local views match a teacher's global views (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from morphoclip.batch import Batch
from morphoclip.losses import DINOLoss, KoLeoLoss
from morphoclip.methods.base import build
from morphoclip.methods.crops import as_crops, first_crops, framed
from morphoclip.methods.distillation import Distillation
from morphoclip.models import PrototypeHead


class DINO(Distillation):
    """Caron et al. 2021 with the settings of Kim et al. 2025.

    Build it from configs as `hydra.utils.instantiate(config.method)`; configs/method/dino.yaml names its parts. The
    encoder must take images of both view sizes (`dynamic_img_size: true` for a ViT).

    Args:
        global_view, local_view: `_target_` of the Compose that makes a view of a crop.
        local_views: number of local views; there are two global ones.
        out_dim: K, number of prototypes.
        head: arguments of `PrototypeHead` (hidden, bottleneck).
        student_temp, center_momentum, sinkhorn_iters: see `DINOLoss`.
        teacher_temp: `_target_` of the schedule of the teacher's temperature.
        koleo_weight: weight of `KoLeoLoss` on the student's global embeddings.
        clip_each_parameter: clip each parameter's gradient separately, as the authors' code does.
        ema_momentum: see `Distillation`; encoder, optimizer, seed, monitor_every: see `Method`.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        global_view: Mapping[str, Any],
        local_view: Mapping[str, Any],
        teacher_temp: Mapping[str, Any],
        ema_momentum: Mapping[str, Any],
        local_views: int = 8,
        out_dim: int = 20_000,
        head: Mapping[str, int] | None = None,
        student_temp: float = 0.1,
        center_momentum: float = 0.9,
        sinkhorn_iters: int = 0,
        koleo_weight: float = 0.0,
        clip_each_parameter: bool = False,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        super().__init__(ema_momentum, encoder=encoder, optimizer=optimizer, seed=seed, monitor_every=monitor_every)
        self.save_hyperparameters()
        self.global_view, self.local_view = build(global_view), build(local_view)
        self.global_views = ["global view 1", "global view 2"]
        self.local_views = [f"local view {number}" for number in range(local_views)]
        self.teacher_temp = build(teacher_temp)
        self.loss = DINOLoss(out_dim, student_temp, center_momentum, sinkhorn_iters)
        self.koleo, self.koleo_weight = KoLeoLoss(), koleo_weight
        self.clip_each_parameter = clip_each_parameter
        self.add_teacher(PrototypeHead(self.encoder.embed_dim, out_dim, **(head or {})))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.loss.accumulate = self.trainer.accumulate_grad_batches

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        crops = as_crops(batch)
        large = torch.cat(
            self.views(crops, batch_idx, *self.global_views, augmentation=self.global_view)
        )  # (2B, C, H, W)
        targets = self.teacher_head(self.teacher_encoder(large))  # (2B, K)
        # One call per resolution.
        embeddings = [self.encoder(large, shown=self.sampled_channels(len(crops), batch_idx, *self.global_views))]
        if self.local_views:
            small = torch.cat(self.views(crops, batch_idx, *self.local_views, augmentation=self.local_view))
            shown = self.sampled_channels(len(crops), batch_idx, *self.local_views)
            embeddings.append(self.encoder(small, shown=shown))
        outputs = self.head(torch.cat(embeddings)).split(len(crops))  # V of (B, K)
        temperature = self.teacher_temp(self.global_step, self.total_steps)
        center = self.loss.center.clone()
        loss = self_distillation = self.loss(outputs, targets.chunk(2), temperature)
        parts = {"train/self_distillation": self_distillation}
        if self.koleo_weight:
            both = embeddings[0].chunk(2)
            parts["train/koleo"] = koleo = (self.koleo(both[0]) + self.koleo(both[1])) / 2
            loss = self_distillation + self.koleo_weight * koleo
        assignments = ((targets.float() - center) / temperature).softmax(dim=1)
        return self.report(loss, embeddings[0][: len(crops)], batch, assignments, **parts)

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The views of a crop, stacked vertically: two global ones, then the local ones."""
        crop = first_crops(batch, 1)
        large = self.views(crop, batch_idx, *self.global_views, augmentation=self.global_view)
        small = self.views(crop, batch_idx, *self.local_views, augmentation=self.local_view)
        return {"views": framed(self.encoder, *large, *small)}
