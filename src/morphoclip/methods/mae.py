"""MAE: reconstruct the pixels of masked patches from the visible ones (He et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from morphoclip.augment import draw_visible
from morphoclip.batch import Batch
from morphoclip.losses import MAELoss
from morphoclip.methods.base import Method
from morphoclip.methods.crops import as_crops, first_crops
from morphoclip.models import MAEDecoder
from morphoclip.models.keywords import takes
from morphoclip.models.mae_decoder import patchify, sin_cos_positions, unpatchify


class MAE(Method):
    """He et al. 2022 with Kim et al.'s mask ratio; features are the mean of patch tokens.

    Build it from configs as `hydra.utils.instantiate(config.method)`. The encoder is a timm ViT with a linear patch
    embedding, because a convolutional stem would see pixels of masked patches.

    Args:
        mask_ratio: fraction of patches that are masked.
        norm_pix, per_channel: see `MAELoss`.
        decoder: arguments of `MAEDecoder` (width, depth, heads).
        encoder, optimizer, augment, seed, monitor_every: see `Method`. The encoder pools patch tokens by their mean.

    Raises:
        ValueError: the encoder has no patches, has a projection, which reconstruction would not train, or an embedding in
            which visible patches see hidden pixels; or the mask hides no patch, or all.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        augment: Mapping[str, Any] | None,
        mask_ratio: float = 0.5,
        norm_pix: bool = True,
        per_channel: bool = False,
        decoder: Mapping[str, int] | None = None,
        seed: int = 0,
        monitor_every: int = 50,
    ) -> None:
        if encoder["name"] == "channel_vit":
            raise ValueError(
                "MAE reconstructs patches of all channels, but channel_vit has one token per channel: use a timm ViT"
            )
        # Without fc_norm the last norm comes before pooling, so that the decoder's loss trains it.
        pooled = {"global_pool": "avg", "fc_norm": False} if takes(encoder["name"], ("global_pool", "fc_norm")) else {}
        super().__init__({**encoder, **pooled}, optimizer, augment, seed, monitor_every)
        self.save_hyperparameters()
        vit = self.encoder.backbone
        if not self.encoder.masks_patches:
            raise ValueError(
                f"MAE masks patches, which {encoder['name']} cannot leave out: use one of timm's vision transformers, e.g. "
                "encoder=vit_small"
            )
        if not isinstance(self.encoder.projection, nn.Identity):
            raise ValueError(f"MAE needs an encoder without projection: leave out projection={encoder['projection']}")
        self.patch = vit.patch_embed.patch_size[0]
        if sees_beyond(vit.patch_embed, len(self.encoder.channels)):
            raise ValueError(
                f"the patch embedding of {encoder['name']} reaches over the borders of patches, so that visible ones would see "
                "hidden pixels: use a timm ViT with a linear one, e.g. encoder=vit_tiny"
            )
        positions = sin_cos_positions(vit.patch_embed.grid_size, vit.embed_dim)
        prefix = positions.new_zeros(vit.pos_embed.shape[1] - len(positions), vit.embed_dim)
        vit.pos_embed = nn.Parameter(torch.cat([prefix, positions])[None], requires_grad=False)
        self.patches = len(positions)
        self.visible = self.patches - round(mask_ratio * self.patches)
        if not 0 < self.visible < self.patches:
            raise ValueError(
                f"mask_ratio={mask_ratio} hides {self.patches - self.visible} of {self.patches} patches: at least one must be hidden, "
                "and one visible"
            )
        channels = len(self.encoder.channels)
        self.loss = MAELoss(norm_pix, per_channel, channels)
        self.decoder = MAEDecoder(vit.embed_dim, vit.patch_embed.grid_size, self.patch**2 * channels, **(decoder or {}))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        (x,) = self.views(as_crops(batch), batch_idx, "view")
        order, mask = self.draw_mask(x, batch_idx)
        tokens = self.encoder.forward_tokens(x, order[:, : self.visible])
        pred = self.decoder(tokens, order, self.encoder.num_prefix_tokens)  # (B, L, p²C)
        loss = self.loss(pred, patchify(x, self.patch), mask)
        return self.report(loss, tokens[:, self.encoder.num_prefix_tokens :].mean(dim=1), batch)

    def draw_mask(self, x: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Patches (B, L) int64 with the visible ones first, and the mask (B, L) bool of hidden ones."""
        order = draw_visible(len(x), self.patches, self.visible, self.draws(len(x), batch_idx, "mask"))
        return order, torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, : self.visible], False)

    def pictures(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Three rows per crop: the visible patches, the reconstruction, and the crop."""
        (x,) = self.views(first_crops(batch, 3), batch_idx, "view")
        order, mask = self.draw_mask(x, batch_idx)
        tokens = self.encoder.forward_tokens(x, order[:, : self.visible])
        patches, hidden = patchify(x, self.patch), mask[..., None]
        pred = self.loss.to_pixels(self.decoder(tokens, order, self.encoder.num_prefix_tokens).float(), patches)
        grid = self.encoder.backbone.patch_embed.grid_size
        painted = unpatchify(torch.where(hidden, pred, patches), self.patch, grid)
        seen = self.encoder.unstandardise(x) * ~unpatchify(hidden.expand_as(patches), self.patch, grid)
        rows = [seen, self.encoder.unstandardise(painted), self.encoder.unstandardise(x)]
        return {"reconstruction": torch.stack(rows, dim=1).flatten(0, 1)}


@torch.no_grad()
def sees_beyond(patch_embed: Any, channels: int) -> bool:
    """Whether pixels of one patch change the tokens of others."""
    rows, columns = patch_embed.patch_size
    images = torch.zeros(2, channels, patch_embed.grid_size[0] * rows, patch_embed.grid_size[1] * columns)
    images[1, :, :rows, :columns] = 1.0
    training = patch_embed.training
    tokens = patch_embed.eval()(images)
    patch_embed.train(training)
    dark, lit = tokens.reshape(2, -1, tokens.shape[-1])[:, 1:]
    return not torch.equal(dark, lit)
