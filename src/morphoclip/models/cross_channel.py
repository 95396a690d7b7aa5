"""Per-channel features ▶ one embedding, by attention across channels."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class CrossChannelFormer(nn.Module):
    """A transformer over C channel tokens and a class token (Lu et al. 2025, CellCLIP).

    Adds a learned channel embedding, then applies LayerNorm, a class token, pre-norm blocks of the features' width, and a
    projection of the normalised class token. With only C + 1 tokens, depth (1-12) is cheap.

    Args:
        feature_dim: D of the channel features, and the width.
        channels: C.
        embed_dim: size of the output.
        depth, heads: number of blocks, and of attention heads per block.

    Raises:
        ValueError: `feature_dim` is not a multiple of `heads`.
    """

    def __init__(
        self, feature_dim: int, channels: int = 5, embed_dim: int = 512, depth: int = 12, heads: int = 8
    ) -> None:
        super().__init__()
        if feature_dim % heads:
            raise ValueError(f"feature_dim {feature_dim} is not a multiple of heads {heads}")
        self.channel_embedding = nn.Parameter(torch.empty(channels, feature_dim))
        self.cls_token = nn.Parameter(torch.empty(1, 1, feature_dim))
        self.norm_input = nn.LayerNorm(feature_dim)
        self.blocks = nn.Sequential(*(Block(feature_dim, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(feature_dim)
        self.projection = nn.Linear(feature_dim, embed_dim)
        self.embed_dim = embed_dim
        nn.init.trunc_normal_(self.channel_embedding, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D) to (B, embed_dim); `x` is not modified.

        Raises:
            ValueError: C or D differ from those it was built with.
        """
        if x.ndim != 3 or x.shape[1:] != self.channel_embedding.shape:
            raise ValueError(f"takes (B, {', '.join(map(str, self.channel_embedding.shape))}), not {tuple(x.shape)}")
        tokens = self.norm_input(x + self.channel_embedding)
        tokens = torch.cat(
            [self.cls_token.expand(x.shape[0], -1, -1), tokens], dim=1
        )  # (B, 1 + C, D); len(x) would fix B in an export
        return self.projection(self.norm(self.blocks(tokens)[:, 0]))
