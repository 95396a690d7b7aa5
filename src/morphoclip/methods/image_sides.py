"""The image side of a cross-modal method: bags of crops, or bags of cached features ▶ joint space.

Both classes have the same interface: the `instances` of a bag, their pool, and the embedding of a pooled bag.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.batch import Batch, to_device
from morphoclip.methods.recompute import recomputed
from morphoclip.models import Encoder, FeatureEncoder, JointProjection
from morphoclip.models.pooling import POOLS, Pool

Views = Callable[[], tuple[Tensor, Tensor | None]]


class CropBags(nn.Module):
    """Crops ▶ encoder ▶ projection ▶ pool: the embedding of a bag is the (weighted) mean of its crops in the joint space.

    Args:
        width: size of the encoder's output.
        embed_dim: size of the joint space.
        pool: `gated` or `mean`. pool_hidden: size of the attention space of the gated pool.
        export: `joint` if the projection is part of the encoder, `backbone` if it is part of this module.
        recompute: crops per chunk that is recomputed in the backward pass; None keeps all activations.
    """

    trains_on_crops = True

    def __init__(
        self,
        width: int,
        embed_dim: int,
        *,
        pool: Literal["gated", "mean"] = "gated",
        pool_hidden: int = 128,
        export: Literal["joint", "backbone"] = "joint",
        recompute: int | None = None,
    ) -> None:
        super().__init__()
        self.is_joint = export == "joint"
        self.recompute = recompute
        self.projection: nn.Module = nn.Identity() if self.is_joint else JointProjection(width, embed_dim)
        self.pool: Pool = POOLS[pool](embed_dim, pool_hidden)

    def pool_of(self, encoder: Encoder) -> Pool:
        """The pool of the bags."""
        return self.pool

    def instances(self, encoder: Encoder, batch: Batch, views: Views) -> Tensor:
        """Joint embeddings (B, N, embed_dim) of a batch's crops, 0 for padding; single crops are bags of one."""
        view, shown = views()
        if batch.mask is None or not batch.has_padding:
            return self.project(encoder, view, shown).unflatten(0, (len(batch), -1))
        # Padding is not computed and does not enter batch statistics.
        present = to_device(batch.host("mask").flatten().nonzero().flatten(), view.device)
        crops = self.project(encoder, view[present], None if shown is None else shown[present])
        padded = crops.new_zeros(len(view), crops.shape[1]).index_copy(0, present, crops)
        return padded.unflatten(0, (len(batch), -1))

    def project(self, encoder: Encoder, view: Tensor, shown: Tensor | None = None) -> Tensor:
        """Joint embeddings (n, embed_dim) of preprocessed crops (n, C, H, W); `shown` as in `Encoder.forward_tokens`."""
        if self.recompute is None:
            return self.projection(encoder(view, shown=shown))
        # The projection has batch norm, so only the part before it runs in chunks.
        backbone = encoder.backbone
        inputs = (view,) if shown is None else (view, shown)
        features = recomputed(backbone, lambda rows: backbone(*(x[rows] for x in inputs)), len(view), self.recompute)
        return self.projection(encoder.projection(features))

    def embed(self, encoder: Encoder, pooled: Tensor) -> Tensor:
        """Joint embeddings (B, embed_dim) of pooled instances (B, embed_dim): the identity."""
        return pooled

    def profiles(self, pooled: Tensor) -> Tensor:
        """Image profiles (B, 1, embed_dim) for `LossContext.image_profile`."""
        return pooled[:, None]

    def frozen(self, instances: Tensor, mask: Tensor | None) -> Tensor | None:
        """None: an encoder that trains on crops has no frozen image space."""
        return None


class FeatureBags(nn.Module):
    """Cached features ▶ pool, each channel with its own weights ▶ the encoder's network.

    Args:
        recompute: bags per chunk that is recomputed in the backward pass; None keeps all activations.
    """

    trains_on_crops = False
    is_joint = True

    def __init__(self, recompute: int | None = None) -> None:
        super().__init__()
        self.recompute = recompute

    def pool_of(self, encoder: FeatureEncoder) -> Pool:
        """The pool of the bags, which is the encoder's own."""
        return encoder.pool

    def instances(self, encoder: FeatureEncoder, batch: Batch, views: Views) -> Tensor:
        """Standardised features (B, N, C, D)."""
        return encoder.preprocess(batch.tensor("features"))

    def embed(self, encoder: FeatureEncoder, pooled: Tensor) -> Tensor:
        """Joint embeddings (B, embed_dim) of pooled instances (B, C, D)."""
        body = encoder.body
        return encoder.norm(recomputed(body, lambda chunk: body(pooled[chunk]), len(pooled), self.recompute))

    def profiles(self, pooled: Tensor) -> Tensor:
        """(B, C, D): the pooled features of each channel."""
        return pooled

    def frozen(self, instances: Tensor, mask: Tensor | None) -> Tensor | None:
        """Unit vectors (B, C·D): the mean of each bag's features, which is independent of training."""
        if mask is None:
            return F.normalize(instances.mean(dim=1).flatten(1), dim=1)
        kept = mask[..., None, None].to(instances.dtype)
        return F.normalize(((instances * kept).sum(dim=1) / kept.sum(dim=1)).flatten(1), dim=1)
