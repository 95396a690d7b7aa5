"""CWA-MSN: masked views of a crop match a teacher's full view of a crop from another well (Assran et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.augment import draw_visible
from morphoclip.batch import Batch
from morphoclip.losses import MSNLoss
from morphoclip.methods.base import build
from morphoclip.methods.crops import first_crops, framed
from morphoclip.methods.distillation import Distillation
from morphoclip.models import ProjectionHead


class CWAMSN(Distillation):
    """Masked siamese networks (Assran et al. 2022) between two wells of one perturbation.

    In a batch of pairs (B, 2, C, H, W) anchors are views of the first crop and targets of the second; the sampler chooses
    the pairs. If the second crop is padding, the first is used for both. A batch of crops (B, C, H, W) is plain MSN.

    Build it from configs as `hydra.utils.instantiate(config.method)`. The encoder is a timm ViT that takes both view
    sizes (`dynamic_img_size: true`).

    Args:
        global_view, local_view: `_target_` of the Compose that makes a view of a crop.
        local_views: number of unmasked small anchors, in addition to the masked large one.
        mask_ratio: fraction of the large anchor's patches hidden from the student.
        prototypes: K.
        head: widths of the projection head after the encoder's own, with batch norm over ranks.
        temperature, target_sharpen, me_max_weight, sinkhorn_iters: see `MSNLoss`.
        ema_momentum: see `Distillation`; encoder, optimizer, seed, monitor_every: see `Method`.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        global_view: Mapping[str, Any],
        local_view: Mapping[str, Any],
        ema_momentum: Mapping[str, Any],
        local_views: int = 10,
        mask_ratio: float = 0.15,
        prototypes: int = 1024,
        head: Sequence[int] = (2048, 2048, 256),
        temperature: float = 0.1,
        target_sharpen: float = 0.25,
        me_max_weight: float = 1.0,
        sinkhorn_iters: int = 3,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        super().__init__(ema_momentum, encoder=encoder, optimizer=optimizer, seed=seed, monitor_every=monitor_every)
        self.save_hyperparameters()
        if not self.encoder.masks_patches:
            raise ValueError(
                f"CWA-MSN masks patches, which {encoder['name']} cannot leave out: use one of timm's vision transformers, e.g. "
                "encoder=vit_small"
            )
        self.global_view, self.local_view = build(global_view), build(local_view)
        self.local_views = [f"local view {number}" for number in range(local_views)]
        self.mask_ratio = mask_ratio
        self.loss = MSNLoss(temperature, target_sharpen, me_max_weight, sinkhorn_iters)
        self.prototypes = nn.Parameter(torch.empty(prototypes, head[-1]))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.add_teacher(ProjectionHead((self.encoder.embed_dim, *head), batch_norm=True))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        first, second = split_pairs(batch)
        (whole,) = self.views(second, batch_idx, "target view", augmentation=self.global_view)
        targets = self.teacher_head(self.teacher_encoder(whole))  # (B, D)
        (large,) = self.views(first, batch_idx, "anchor view", augmentation=self.global_view)
        shown = self.sampled_channels(len(large), batch_idx, "anchor view")
        embeddings = [self.encoder(large, keep=self.visible_patches(large, batch_idx), shown=shown)]
        if self.local_views:
            small = torch.cat(self.views(first, batch_idx, *self.local_views, augmentation=self.local_view))
            shown = self.sampled_channels(len(large), batch_idx, *self.local_views)
            embeddings.append(self.encoder(small, shown=shown))
        anchors = self.head(torch.cat(embeddings))  # (V·B, D), view-major
        loss = self.loss(anchors, targets, self.prototypes)
        sharp = F.linear(F.normalize(targets.float(), dim=1), F.normalize(self.prototypes.detach().float(), dim=1))
        assignments = (sharp.float() / (self.loss.temperature * self.loss.target_sharpen)).softmax(dim=1)
        return self.report(loss, embeddings[0], batch, assignments)

    def visible_patches(self, view: Tensor, batch_idx: int) -> Tensor:
        """int64 (B, L'), the visible patches of the large anchor."""
        patch = self.encoder.backbone.patch_embed.patch_size
        patches = (view.shape[-2] // patch[0]) * (view.shape[-1] // patch[1])
        visible = patches - round(self.mask_ratio * patches)
        return draw_visible(len(view), patches, visible, self.draws(len(view), batch_idx, "mask"))[:, :visible]

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The views of a pair, stacked vertically: target, anchor without its masked patches, small anchors."""
        first, second = (first_crops(side, 1) for side in split_pairs(batch))
        (whole,) = self.views(second, batch_idx, "target view", augmentation=self.global_view)
        (large,) = self.views(first, batch_idx, "anchor view", augmentation=self.global_view)
        patch = self.encoder.backbone.patch_embed.patch_size[0]
        rows, columns = (side // patch for side in large.shape[-2:])
        seen = torch.zeros(1, rows * columns, device=large.device).scatter(1, self.visible_patches(large, batch_idx), 1)
        seen = seen.view(1, 1, rows, columns).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        small = self.views(first, batch_idx, *self.local_views, augmentation=self.local_view)
        frames = framed(self.encoder, whole, large, *small)
        frames[1, :, : seen.shape[-2], : seen.shape[-1]] *= seen[0]
        return {"views": frames}


def split_pairs(batch: Batch) -> tuple[Batch, Batch]:
    """The crops (B, C, H, W) of anchors and of targets; the same crops if the batch holds no pairs.

    Raises:
        ValueError: bags of a size other than 2.
    """
    images = batch.tensor("images")
    if images.ndim == 4:
        return batch, batch
    if images.shape[1] != 2:
        raise ValueError(f"CWA-MSN takes crops or pairs, not bags of {images.shape[1]}: set bag_size to 2")
    row = torch.arange(len(batch), device=images.device)
    partner = torch.ones_like(row) if batch.mask is None else batch.mask[:, 1].long()

    def side(column: Tensor) -> Batch:
        # CUDA cannot index uint16, only int16 with the same bits
        pixels = images.view(torch.int16) if images.dtype == torch.uint16 else images
        chosen: dict[str, Any] = {name: batch.tensor(name)[row, column] for name in ("low", "high")}
        return replace(batch, mask=None, images=pixels[row, column].view(images.dtype), **chosen)

    return side(torch.zeros_like(row)), side(partner)
