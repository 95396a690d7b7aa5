"""Per-channel features ▶ one embedding, by attention across channels."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import QuickGELU
from timm.models.vision_transformer import Block
from torch import Tensor, nn

LAYOUTS = ("pre_norm", "clip")


class CrossChannelFormer(nn.Module):
    """A transformer over C channel tokens and a class token (Lu et al. 2025, CellCLIP).

    Adds a learned channel embedding, then applies LayerNorm, a class token, pre-norm blocks of the features' width, and a
    projection of the normalised class token. With only C + 1 tokens, depth (1-12) is cheap.

    Args:
        feature_dim: D of the channel features, and the width.
        channels: C.
        embed_dim: size of the output.
        depth, heads: number of blocks, and of attention heads per block.
        layout: `pre_norm`, or `clip` for that of the published CellCLIP weights: a further LayerNorm behind the class token,
            and CLIP's approximation of GELU.

    Raises:
        ValueError: `feature_dim` is not a multiple of `heads`, or an unknown layout.
    """

    def __init__(
        self,
        feature_dim: int,
        channels: int = 5,
        embed_dim: int = 512,
        depth: int = 12,
        heads: int = 8,
        layout: str = "pre_norm",
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r}: use {' or '.join(LAYOUTS)}")
        if feature_dim % heads:
            raise ValueError(f"feature_dim {feature_dim} is not a multiple of heads {heads}")
        self.channel_embedding = nn.Parameter(torch.empty(channels, feature_dim))
        self.cls_token = nn.Parameter(torch.empty(1, 1, feature_dim))
        self.norm_input = nn.LayerNorm(feature_dim)
        of_clip: dict[str, Any] = {"act_layer": QuickGELU, "norm_layer": nn.LayerNorm} if layout == "clip" else {}
        self.norm_pre = nn.LayerNorm(feature_dim) if layout == "clip" else nn.Identity()
        self.blocks = nn.Sequential(*(Block(feature_dim, heads, qkv_bias=True, **of_clip) for _ in range(depth)))
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
        start = self.cls_token.expand(x.shape[0], -1, -1)  # len(x) would fix B in an export
        tokens = torch.cat([start, tokens], dim=1)  # (B, 1 + C, D)
        return self.projection(self.norm(self.blocks(self.norm_pre(tokens))[:, 0]))
