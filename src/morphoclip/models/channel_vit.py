"""ChannelViT: a vision transformer with one token per channel and patch (Bao et al. 2024)."""

from __future__ import annotations

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn


class ChannelViT(nn.Module):
    """ChannelViT (Bao et al. 2024): a patch embedding shared by all channels, channel embeddings, shared positions.

    Hierarchical channel sampling, in training only: the number m of channels is drawn uniformly from 1 … C per batch,
    then m channels per image. Methods draw both for the batches of all ranks (`Method.sampled_channels`). A crop has C
    times the tokens of a plain ViT.

    Args:
        in_channels: C.
        image_size, patch_size: in pixels; for other image sizes positions are interpolated.
        embed_dim, depth, heads, mlp_ratio, drop_path_rate: settings of the transformer; the defaults are ViT-S.
        channel_sampling: whether methods sample channels in training.
        global_pool: `token` (class token) or `avg` (mean over the other tokens).
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        in_channels: int = 5,
        image_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        channel_sampling: bool = True,
        global_pool: str = "token",
    ) -> None:
        super().__init__()
        if global_pool not in ("token", "avg"):
            raise ValueError(f"global_pool={global_pool!r}: use token or avg")
        self.num_features = embed_dim
        self.channel_sampling = channel_sampling
        self.global_pool = global_pool
        self.patch_embed = PatchEmbed(image_size, patch_size, 1, embed_dim, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.patch_embed.num_patches, embed_dim))
        self.channel_embedding = nn.Parameter(torch.empty(in_channels, embed_dim))
        rates = torch.linspace(0, drop_path_rate, depth).tolist()
        self.blocks = nn.Sequential(*(Block(embed_dim, heads, mlp_ratio, True, drop_path=rate) for rate in rates))
        self.norm = nn.LayerNorm(embed_dim)
        for table in (self.cls_token, self.pos_embed, self.channel_embedding):
            nn.init.trunc_normal_(table, std=0.02)

    def forward_features(self, x: Tensor, keep: Tensor | None = None, shown: Tensor | None = None) -> Tensor:
        """Normalised tokens (B, 1 + m·L', D) of images (B, C, H, W): the class token, then the patches channel by channel.

        `keep` (B, L') int64 are the visible patches of every channel (None: all); `shown` (B, m) int64 are the channels
        of each image (None: all).
        """
        count, channels, height, width = x.shape
        if shown is None:
            shown = torch.arange(channels, device=x.device).expand(count, -1)
        x = x.gather(1, shown[..., None, None].expand(-1, -1, height, width))
        tokens = self.patch_embed(x.flatten(0, 1)[:, None]).unflatten(0, shown.shape)  # (B, m, L, D)
        tokens = tokens + self.positions(height, width) + self.channel_embedding[shown][:, :, None]
        if keep is not None:
            tokens = tokens.gather(2, keep[:, None, :, None].expand(-1, shown.shape[1], -1, tokens.shape[-1]))
        tokens = torch.cat([self.cls_token.expand(count, -1, -1), tokens.flatten(1, 2)], dim=1)
        return self.norm(self.blocks(tokens))

    def positions(self, height: int, width: int) -> Tensor:
        """Position embeddings (1, L, D) for images of this size."""
        grid = [side // patch for side, patch in zip((height, width), self.patch_embed.patch_size, strict=True)]
        return resample_abs_pos_embed(self.pos_embed, grid, self.patch_embed.grid_size, num_prefix_tokens=0)

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, D) of tokens."""
        return tokens[:, 0] if self.global_pool == "token" else tokens[:, 1:].mean(dim=1)

    def forward(self, x: Tensor, shown: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(x, shown=shown))
