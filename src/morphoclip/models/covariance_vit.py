"""A small vision transformer that also reads how its filters' responses vary together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from morphoclip.models.norm import BatchNorm
from morphoclip.models.vit_demo import vit_demo

# Of a variance whose scale is 1: what is flatter than this has no texture, and its correlations shrink to nought.
FLAT = 1e-3


class CovariancePool(nn.Module):
    """Second moments over the map of k learned combinations of filter responses: (B, F, H, W) to (B, k (k + 1) / 2).

    First the k log standard deviations, then the correlations of all pairs, each brought to mean 0 and variance 1 over
    the ranks' batch. A mean over the map says how much of a pattern there is; that two stains' patterns lie in the same
    places is a product, which layers of sums and ReLUs are slow to find. Bilinear pooling (Lin et al. 2015),
    normalised as it trains fastest (global covariance pooling: Li et al. 2018).

    Args:
        features: F; responses are expected to have a variance near 1.
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

    An embedding is the mean of the transformer's tokens, then the second moments of each level's responses before their
    ReLU, finest first. As these come from the whole crop, patches cannot be masked: MAE and MSN take `vit_demo`.

    Args:
        covariance_dim: k of each level's pool.
        Others are those of `vit_demo`.
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
