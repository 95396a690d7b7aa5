"""Numbers that show when embeddings collapse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rank_me(embeddings: Tensor, eps: float = 1e-7) -> Tensor:
    """Effective rank of embeddings (B, D): exp of the entropy of the singular values' shares (Garrido et al. 2023)."""
    values = torch.linalg.svdvals(embeddings.detach().float())
    share = values / values.sum() + eps
    return torch.exp(-(share * share.log()).sum())


def mean_cosine(embeddings: Tensor) -> Tensor:
    """Mean cosine over the pairs of different rows of (B, D); 1 is collapse. Needs no B × B matrix."""
    rows = F.normalize(embeddings.detach().float(), dim=-1)
    count = len(rows)
    return (rows.sum(0).square().sum() - rows.square().sum()) / (count * (count - 1))


def prototype_usage(assignments: Tensor) -> Tensor:
    """Share of the K prototypes in use: exp of the entropy of the mean of assignments (B, K), over K; 1/K is collapse."""
    mean = assignments.detach().float().mean(dim=0)
    return torch.exp(-torch.special.xlogy(mean, mean).sum()) / assignments.shape[1]
