"""A small vision transformer with covariance pooling of its filter responses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from morphoclip.models.norm import BatchNorm
from morphoclip.models.vit_demo import vit_demo

# Added to variances of scale 1: responses flatter than this have no texture, and their correlations shrink to 0.
FLAT = 1e-3


class CovariancePool(nn.Module):
    """Second moments over the map of k learned combinations of filter responses: (B, F, H, W) to (B, k (k + 1) / 2).

    First the k log standard deviations, then the correlations of all pairs, each normalised to mean 0 and variance 1 over
    the ranks' batch. A mean over the map measures how much of a pattern there is; the colocalisation of two patterns is a
    product, which sums and ReLUs learn slowly. Bilinear pooling (Lin et al. 2015), normalised for fast training (global
    covariance pooling: Li et al. 2018).

    Args:
        features: F; responses should have a variance near 1.
        dim: k.
    """

    pairs: Tensor

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.combine = nn.Conv2d(features, dim, 1, bias=False)
        self.register_buffer("pairs", torch.triu_indices(dim, dim, 1), persistent=False)
        self.num_features = dim * (dim + 1) // 2
        self.norm = BatchNorm(self.num_features)

    def forward(self, responses: Tensor) -> Tensor:
        x = self.combine(responses).flatten(2)  # (B, k, HW)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
            x = x - x.mean(dim=2, keepdim=True)
            covariance = x @ x.transpose(1, 2) / x.shape[2]  # (B, k, k)
            variance = covariance.diagonal(dim1=1, dim2=2) + FLAT
            a, b = self.pairs
            correlation = covariance[:, a, b] / (variance[:, a] * variance[:, b]).sqrt()
            return self.norm(torch.cat([variance.log() / 2, correlation], dim=1))


class CovarianceViT(nn.Module):
    """`vit_demo` with a `CovariancePool` on each level of its stem; (B, C, H, W) to (B, num_features).

    An embedding is the mean of the transformer's tokens, followed by the second moments of each level's responses before
    the ReLU, finest first. These use the whole crop, so patches cannot be masked: use `vit_demo` for MAE and MSN.

    Args:
        covariance_dim: k of each level's pool. All others are those of `vit_demo`.
    """

    def __init__(
        self,
        in_channels: int = 5,
        image_size: int = 64,
        embed_dim: int = 128,
        depth: int = 1,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        stem_widths: Sequence[int] = (16, 32, 64),
        covariance_dim: int = 16,
        **kw,
    ) -> None:
        super().__init__()
        self.vit = vit_demo(in_channels, image_size, embed_dim, depth, heads, mlp_ratio, stem_widths, **kw)
        pools = [CovariancePool(width, covariance_dim) for width in (*stem_widths, embed_dim)]
        self.pools = nn.ModuleList(pools)
        self.num_features = embed_dim + sum(pool.num_features for pool in pools)

    def forward_features(self, x: Tensor) -> Tensor:
        """Normalised tokens (B, L, embed_dim) of the transformer."""
        return self.vit.forward_features(x)

    def forward(self, x: Tensor) -> Tensor:
        vit = self.vit
        responses = vit.patch_embed.responses(x)
        tokens = vit._pos_embed(vit.patch_embed.tokens(responses[-1]))
        first = vit.forward_head(vit.norm(vit.blocks(vit.norm_pre(tokens))))
        second = [pool(level) for pool, level in zip(self.pools, responses, strict=True)]
        return torch.cat([first, *second], dim=1)
