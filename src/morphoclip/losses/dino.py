"""DINO's self-distillation loss (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from morphoclip.distributed import all_reduced_mean
from morphoclip.losses.precision import InFloat32, full_precision
from morphoclip.losses.sinkhorn import sinkhorn


class DINOLoss(InFloat32):
    """Cross-entropy from the teacher's global views to all other views of the student (Caron et al. 2021).

    The mean over the 2V − 2 pairs of different views of −Σ softmax((t − c)/τ_t) · log softmax(s/τ_s). The centre c is an
    exponential moving average of the teacher's mean output over all ranks, updated after use, in training mode only.

    Args:
        out_dim: K.
        student_temp: τ_s.
        center_momentum: momentum of c.
        sinkhorn_iters: iterations of Sinkhorn balancing of the teacher, as in DINOv2; 0 uses centring instead.

    Attributes:
        accumulate: batches per optimizer step; c is updated once per step, by the mean of their outputs.
    """

    center: Tensor

    def __init__(
        self, out_dim: int, student_temp: float = 0.1, center_momentum: float = 0.9, sinkhorn_iters: int = 0
    ) -> None:
        super().__init__()
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.sinkhorn_iters = sinkhorn_iters
        self.accumulate = 1
        self._means: list[Tensor] = []
        self.register_buffer("center", torch.zeros(1, out_dim))

    @full_precision
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], teacher_temp: float) -> Tensor:
        """Loss of V student outputs (B, K), global views first, against the 2 teacher outputs (B, K) of the globals.

        `teacher_temp` is τ_t at this step. B must be the same on all ranks.
        """
        targets = self._targets(teacher, teacher_temp)  # (2, B, K)
        views = torch.stack(list(student)) / self.student_temp  # (V, B, K)
        # Targets sum to 1, so the cross-entropy is the logsumexp minus the logits' mean under the targets.
        normalisers = views.logsumexp(dim=2).mean(dim=1)  # (V,)
        agreement = torch.einsum("gbk,vbk->gv", targets, views) / views.shape[1]
        entropies = normalisers - agreement  # (2, V)
        different = ~torch.eye(*entropies.shape, dtype=torch.bool, device=entropies.device)
        return (entropies * different).sum() / different.sum()

    @torch.no_grad()
    def _targets(self, teacher: Sequence[Tensor], temperature: float) -> Tensor:
        outputs = torch.stack(list(teacher)).detach()
        if self.sinkhorn_iters:
            return torch.stack([sinkhorn(view / temperature, self.sinkhorn_iters) for view in outputs])
        targets = ((outputs - self.center) / temperature).softmax(dim=2)
        if self.training:
            self._means.append(outputs.mean(dim=(0, 1)))
            if len(self._means) == self.accumulate:
                mean = all_reduced_mean(torch.stack(self._means).mean(dim=0))
                self._means.clear()
                self.center.lerp_(mean.to(self.center.dtype), 1 - self.center_momentum)
        return targets
