"""The loss of Masked Siamese Networks, also of CWA-MSN (Assran et al. 2022)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.distributed import all_reduced_mean
from morphoclip.losses.precision import full_precision
from morphoclip.losses.sinkhorn import sinkhorn


class MSNLoss(nn.Module):
    """Cross-entropy from sharpened targets to anchors over prototypes, plus mean-entropy maximisation (Assran 2022).

    L = mean H(p⁺, p) + λ (log K − H(p̄)), where p = softmax(cos(anchor, q)/τ) and p⁺ = softmax(cos(target, q)/(τ·s)),
    balanced by Sinkhorn, has no gradient. p̄ is the mean over the anchors of *all ranks*: the gradient of a mean over one
    rank's anchors has another direction.

    Args:
        temperature: τ.
        target_sharpen: s.
        me_max_weight: λ.
        sinkhorn_iters: iterations of Sinkhorn balancing of the targets; 0 for none.
    """

    def __init__(
        self,
        temperature: float = 0.1,
        target_sharpen: float = 0.25,
        me_max_weight: float = 1.0,
        sinkhorn_iters: int = 3,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.target_sharpen = target_sharpen
        self.me_max_weight = me_max_weight
        self.sinkhorn_iters = sinkhorn_iters

    @full_precision
    def forward(self, anchors: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        """Loss of anchors (V·B, D), view-major, against targets (B, D) over prototypes (K, D).

        Raises:
            ValueError: the number of anchors is not a multiple of the number of targets.
        """
        if len(anchors) % len(targets):
            raise ValueError(
                f"the number of anchors ({len(anchors)}) must be a multiple of the targets ({len(targets)})"
            )
        q = F.normalize(prototypes, dim=1)
        log_p = (F.normalize(anchors, dim=1) @ q.T / self.temperature).log_softmax(dim=1)  # (V·B, K)
        with torch.no_grad():
            sharp = F.normalize(targets, dim=1) @ q.T / (self.temperature * self.target_sharpen)
            p_target = sinkhorn(sharp.log_softmax(dim=1), self.sinkhorn_iters)  # (B, K)
        agreement = -(p_target * log_p.unflatten(0, (-1, len(targets)))).sum(dim=2).mean()
        p_mean = all_reduced_mean(log_p.exp().mean(dim=0))
        me_max = math.log(len(prototypes)) + torch.special.xlogy(p_mean, p_mean).sum()
        return agreement + self.me_max_weight * me_max
