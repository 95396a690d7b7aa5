"""Monitors of collapsing embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def collapse_monitors(
    embeddings: Tensor, assignments: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(values to log, readings for `CollapseAlarm`) of a batch's embeddings (B, D) and, if any, assignments (B, K)."""
    logged = {"rank_me": rank_me(embeddings), "mean_cosine": mean_cosine(embeddings)}
    readings = dict(logged)
    if assignments is not None:
        count = assignments.shape[1]
        logged["prototype_usage"] = usage = prototype_usage(assignments)
        logged["max_probability"] = largest = assignments.amax(dim=1).mean()
        readings |= {"prototypes": usage * count, "max_probability": largest * count}
    return logged, readings


def rank_me(embeddings: Tensor, eps: float = 1e-7) -> Tensor:
    """Effective rank of embeddings (B, D): exp of the entropy of the singular values' shares (Garrido et al. 2023).

    Values that are not finite count as 0: the guard reports them, and svdvals would raise on this rank only.
    """
    values = torch.linalg.svdvals(embeddings.detach().float().nan_to_num(0.0, 0.0, 0.0))
    share = values / values.sum() + eps
    return torch.exp(-(share * share.log()).sum())


def mean_cosine(embeddings: Tensor) -> Tensor:
    """Mean cosine over the pairs of different rows of (B, D); 1 is collapse. Needs no B × B matrix."""
    rows = F.normalize(embeddings.detach().float(), dim=-1)
    count = len(rows)
    return (rows.sum(0).square().sum() - rows.square().sum()) / (count * (count - 1))


def prototype_usage(assignments: Tensor) -> Tensor:
    """Fraction of the K prototypes in use: exp of the entropy of the mean of assignments (B, K), over K; 1/K is collapse."""
    mean = assignments.detach().float().mean(dim=0)
    return torch.exp(-torch.special.xlogy(mean, mean).sum()) / assignments.shape[1]


def cross_plate_knn(profiles: Tensor, perturbation: Tensor, plate: Tensor) -> tuple[Tensor, Tensor]:
    """Fraction of wells whose nearest well on another plate has the same perturbation, and its chance level.

    Profiles are centred by plate and compared by cosine. Wells without a replicate on another plate are not queries.

    Args:
        profiles: (W, D), one row per well.
        perturbation, plate: int64 (W,).
    """
    _, number = plate.unique(return_inverse=True)
    profiles = profiles.float()
    means = profiles.new_zeros(int(number.max()) + 1, profiles.shape[1]).index_add_(0, number, profiles)
    rows = F.normalize(profiles - (means / number.bincount()[:, None])[number], dim=1)
    elsewhere = number[:, None] != number
    replicate = elsewhere & (perturbation[:, None] == perturbation)
    queries = replicate.any(dim=1)
    nearest = (rows @ rows.T).masked_fill(~elsewhere, -torch.inf).argmax(dim=1)
    found = replicate.gather(1, nearest[:, None]).squeeze(1).float()
    chance = replicate.sum(dim=1) / elsewhere.sum(dim=1).clamp_min(1)
    return found[queries].mean(), chance[queries].mean()
