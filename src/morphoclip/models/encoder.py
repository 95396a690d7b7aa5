"""The image encoder: a backbone with its preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from morphoclip.models.channel_vit import ChannelViT
from morphoclip.models.heads import JointProjection
from morphoclip.models.per_channel import PerChannel


class Encoder(nn.Module):
    """A backbone with its channels, its preprocessing, and the config to rebuild it.

    Attributes:
        embed_dim: D, the size of an embedding.
        channels: names of the C channels in the order of `images`.
        config: plain dict such that `create_encoder(**config)` rebuilds this encoder without its weights.
        trained_on: facts of the training data, see `export.training_data`; empty if unknown.
        feature_shape: (C, D) of the cached features of a crop; (1, embed_dim) for encoders of all channels together.
        samples_channels: whether training uses random subsets of the channels.
        num_prefix_tokens: tokens of `forward_tokens` before the first patch (class and register tokens).
    """

    backbone: Any  # from timm, Hugging Face, this package or the user, with their own interfaces
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        channels: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        config: dict[str, Any],
        projection: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection: nn.Module = (
            nn.Identity() if projection is None else JointProjection(width_of(backbone), projection)
        )
        self.embed_dim: int = projection or width_of(backbone)
        self.channels = tuple(channels)
        self.config = config
        self.trained_on: dict[str, Any] = {}
        self.num_prefix_tokens: int = getattr(backbone, "num_prefix_tokens", 0)
        # Not persistent: the config holds them, and a second copy in the weights could contradict it.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def feature_shape(self) -> tuple[int, int]:
        return self.backbone.feature_shape if isinstance(self.backbone, PerChannel) else (1, self.embed_dim)

    @property
    def samples_channels(self) -> bool:
        return isinstance(self.backbone, ChannelViT) and self.backbone.channel_sampling

    @property
    def masks_patches(self) -> bool:
        """Whether `forward_tokens` can leave patches out."""
        return isinstance(self.backbone, VisionTransformer | ChannelViT)

    def scale(self, images: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Intensities to [0, 1]: images (B, C, H, W) of any dtype, low and high (B, C); values outside are clipped.

        In float32 at least, whatever the precision of the weights: bf16 has 256 steps between two powers of 2.
        """
        dtype = at_least_float32(self.mean.dtype)
        low, high = (limit.to(dtype)[..., None, None] for limit in (low, high))
        # One copy, then in place: on a CPU half of the time is spent on new memory. A channel without contrast
        # (high = low) becomes black and white instead of infinite.
        return images.to(dtype, copy=True).sub_(low).div_((high - low).clamp_min(1e-6)).clamp_(0, 1)

    def standardise(self, x: Tensor) -> Tensor:
        """Subtract the channel means from [0, 1] images (B, C, H, W) and divide by the channel standard deviations.

        The result has the precision of the weights.
        """
        return (x - self.mean.to(x.dtype)).div_(self.std.to(x.dtype)).to(self.mean.dtype)

    def unstandardise(self, x: Tensor) -> Tensor:
        """Standardised images (B, C, H, W) back to [0, 1], for display."""
        return (x * self.std + self.mean).clamp_(0, 1)

    def preprocess(self, images: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """uint16 crops (B, C, H, W) with their limits (B, C) to the input of `forward`: scaled and standardised."""
        return self.standardise(self.scale(images, low, high))

    def forward(self, x: Tensor, keep: Tensor | None = None, shown: Tensor | None = None) -> Tensor:
        """Embeddings (B, D) of preprocessed crops (B, C, H, W); `keep` and `shown` as in `forward_tokens`."""
        if keep is None and shown is None:
            return self.projection(self.backbone(x))
        return self.projection(self.backbone.forward_head(self.forward_tokens(x, keep, shown)))

    def forward_tokens(self, x: Tensor, keep: Tensor | None = None, shown: Tensor | None = None) -> Tensor:
        """Normalised tokens before pooling and projection.

        Args:
            x: preprocessed crops (B, C, H, W).
            keep: int64 (B, L'), the visible patches (the others are masked out); None for all.
            shown: int64 (B, m), the channels used by `channel_vit`; None for all. No other backbone takes it.

        Returns:
            (B, P + L', width): P prefix tokens, then the patches in the order of `keep` (for `channel_vit`, channel by
            channel). A convolutional backbone has no prefix and gives one token per position of its last feature map,
            `per_channel` one token per channel.

        Raises:
            TypeError: `keep` for a backbone that is not a timm vision transformer, or `shown` for one that is not
                `channel_vit`.
        """
        vit = self.backbone
        if isinstance(vit, ChannelViT):
            return vit.forward_features(x, keep, shown)
        if shown is not None:
            raise TypeError(f"{type(vit).__name__} uses all channels: only channel_vit can use a subset")
        if keep is None:
            features = vit.forward_features(x)
            if features.ndim == 4:  # a map, of Swin with channels last
                last = features.shape[-1] == vit.num_features != features.shape[1]
                return features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
            return features
        if not self.masks_patches:
            raise TypeError(f"{type(vit).__name__} has no patch tokens to mask: use a vision transformer")
        tokens = vit._pos_embed(vit.patch_embed(x))
        prefix, patches = tokens.split([self.num_prefix_tokens, tokens.shape[1] - self.num_prefix_tokens], dim=1)
        patches = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
        return vit.norm(vit.blocks(vit.norm_pre(torch.cat([prefix, patches], dim=1))))


def width_of(backbone: nn.Module) -> int:
    """Size of a backbone's features; some of timm's have a layer between the last map and the classifier."""
    widths: Any = backbone
    return int(getattr(widths, "head_hidden_size", None) or widths.num_features)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32 for bf16 and half; others unchanged."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
