"""Encoder of cached features: bags of per-channel features or profile vectors ▶ pool ▶ network ▶ embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from morphoclip.models.cross_channel import CrossChannelFormer
from morphoclip.models.norm import BatchNorm
from morphoclip.models.pooling import POOLS, Pool
from morphoclip.models.residual import ResidualMLP

FEATURE_ENCODERS = ("cross_channel_former", "profile_mlp")


class FeatureEncoder(nn.Module):
    """Standardise ▶ pool the bag, each channel with its own weights ▶ CrossChannelFormer or residual MLP.

    Args:
        name: `cross_channel_former` attends across channels; `profile_mlp` reads all channels as one vector.
        channels: names of the C channels; a profile vector is one channel.
        feature_dim: D of each channel.
        embed_dim: size of an embedding.
        mean, std: statistics of the features, a number or (C, D); stored with the weights.
        clip: clip standardised features to ± this; None for no clipping.
        pool: `gated` (GatedAttentionPool) or `mean`.
        pool_hidden: size of the attention space of the gated pool.
        batch_norm: normalise the embedding to mean 0 and variance 1 per dimension over the ranks' batch.
        body: arguments of `CrossChannelFormer` (depth, heads) or `ResidualMLP` (width, blocks, dropout).

    Attributes:
        config: plain dict such that `create_encoder(**config)` rebuilds this encoder without its weights.
        feature_shape: (C, D).
        trained_on: facts of the training data, see `export.training_data`; empty if unknown.
    """

    mean: Tensor
    std: Tensor
    samples_channels = False  # as `Encoder`

    def __init__(
        self,
        name: str,
        *,
        channels: Sequence[str],
        feature_dim: int,
        embed_dim: int = 512,
        mean: Sequence | float = 0.0,
        std: Sequence | float = 1.0,
        clip: float | None = None,
        pool: str = "gated",
        pool_hidden: int = 128,
        pool_bias: bool = False,
        batch_norm: bool = False,
        **body: Any,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.feature_shape = (len(self.channels), feature_dim)
        self.embed_dim = embed_dim
        self.trained_on: dict[str, Any] = {}
        self.clip = clip
        for what, values in {"mean": mean, "std": std}.items():
            given = torch.as_tensor(values, dtype=torch.float32)
            if given.ndim and tuple(given.shape) != self.feature_shape:
                raise ValueError(f"{name} takes {self.feature_shape} features, {what} is {tuple(given.shape)}")
            self.register_buffer(what, given.expand(self.feature_shape).clone())
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r}: use one of {sorted(POOLS)}")
        self.pool: Pool = POOLS[pool](feature_dim, pool_hidden, pool_bias)
        if name == "cross_channel_former":
            self.body: nn.Module = CrossChannelFormer(feature_dim, len(self.channels), embed_dim, **body)
        else:
            self.body = nn.Sequential(nn.Flatten(), ResidualMLP(len(self.channels) * feature_dim, embed_dim, **body))
        self.norm = BatchNorm(embed_dim, affine=False) if batch_norm else nn.Identity()
        self.config = {
            "name": name,
            "channels": list(self.channels),
            "feature_dim": feature_dim,
            "embed_dim": embed_dim,
            "clip": clip,
            "pool": pool,
            "pool_hidden": pool_hidden,
            "batch_norm": batch_norm,
            **({"pool_bias": True} if pool_bias else {}),
            **body,
        }

    def preprocess(self, features: Tensor) -> Tensor:
        """Standardised float features (…, C, D).

        Raises:
            ValueError: the features have another shape.
        """
        if tuple(features.shape[-2:]) != self.feature_shape:
            raise ValueError(f"this encoder takes {self.feature_shape} features, not {tuple(features.shape[-2:])}")
        x = (features.to(self.mean.dtype) - self.mean) / self.std.clamp_min(1e-6)
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def embed(self, pooled: Tensor) -> Tensor:
        """Embeddings (B, E) of pooled bags (B, C, D)."""
        return self.norm(self.body(pooled))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings (B, E) of preprocessed bags (B, N, C, D), with `mask` (B, N) False on padding, or of (B, C, D)."""
        return self.embed(x if x.ndim == 3 else self.pool(x, mask))
