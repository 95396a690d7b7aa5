"""InfoLOOB on Hopfield-retrieved embeddings, the loss of CLOOB (Fürst et al. 2022) and CLOOME."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.distributed import gather_rows, world_size
from morphoclip.losses.candidates import gather_candidates
from morphoclip.losses.chunks import map_rows, sum_over_rows
from morphoclip.losses.context import LossContext
from morphoclip.losses.cross_modal import CrossModalLoss
from morphoclip.losses.precision import full_precision


class CLOOBLoss(CrossModalLoss):
    """L(p_xx, p_xy) + L(p_yy, p_yx) of images x and others y (Fürst et al. 2022).

    p_xy = norm(Xᵀ softmax(β X y)) is state y retrieved from the stored images X, and likewise for the others. InfoLOOB
    leaves the positive out of the denominator: L(a, b) = τ [−mean_i k_ii + mean_i log Σ_{j≠i} e^{k_ij}], k = a bᵀ/τ.
    Rows of the same id are positives, which enter by their mean, and never negatives.

    Args:
        inv_tau: 1/τ, fixed.
        beta: β, the inverse temperature of retrieval.
        chunk_size: rows of similarities held at a time; None for all.
    """

    uses_logit_scale = False

    def __init__(self, inv_tau: float = 30.0, beta: float = 8.0, chunk_size: int | None = None) -> None:
        super().__init__()
        self.inv_tau = inv_tau
        self.beta = beta
        self.chunk_size = chunk_size

    @full_precision
    def forward(
        self,
        image: Tensor,
        other: Tensor,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
        *,
        context: LossContext | None = None,
    ) -> Tensor:
        """Loss of image (B, D) against other (U, D); τ is fixed, so `logit_scale` and `logit_bias` are not used.

        Raises:
            ValueError: all images share one id, so that there are no negatives; ids as in `match_candidates`.
        """
        rows = gather_candidates(image, other, context)
        if rows.is_paired.sum() < 2:
            raise ValueError("CLOOBLoss needs images of at least two ids per step: raise batch_size")
        x, y = rows.image, rows.other
        # States of this rank, retrieved from the stored rows of all ranks.
        p_xx = self.retrieve(x[rows.local_image], x)
        p_yy = self.retrieve(y[rows.local_other], y, rows.is_first)
        p_xy = gather_rows(self.retrieve(y[rows.local_other], x), rows.other_counts)  # (M, D)
        p_yx = gather_rows(self.retrieve(x[rows.local_image], y, rows.is_first), rows.image_counts)  # (N, D)
        column = rows.column[rows.local_image]
        candidate = torch.arange(len(y), device=y.device)
        per_candidate = rows.images_per_candidate(x.dtype)

        def images(chunk: slice, p_xx: Tensor, p_xy: Tensor) -> Tensor:
            k = self.inv_tau * p_xx[chunk] @ p_xy.T  # (b, M)
            positive = column[chunk, None] == candidate
            left_out = positive | ~rows.is_first
            return k.masked_fill(left_out, -torch.inf).logsumexp(1).sum() - (k * positive).sum()

        def others(chunk: slice, p_yy: Tensor, p_yx: Tensor) -> Tensor:
            global_chunk = slice(rows.local_other.start + chunk.start, rows.local_other.start + chunk.stop)
            k = self.inv_tau * p_yy[chunk] @ p_yx.T  # (u, N)
            positive = candidate[global_chunk, None] == rows.column
            terms = (
                k.masked_fill(positive, -torch.inf).logsumexp(1) - (k * positive).sum(1) / per_candidate[global_chunk]
            )
            return (terms * rows.is_paired[global_chunk]).sum()

        from_image = sum_over_rows(images, slice(0, len(p_xx)), self.chunk_size, p_xx, p_xy) / len(x)
        from_other = sum_over_rows(others, slice(0, len(p_yy)), self.chunk_size, p_yy, p_yx) / rows.is_paired.sum()
        return world_size() * (from_image + from_other) / self.inv_tau

    def retrieve(self, states: Tensor, stored: Tensor, kept: Tensor | None = None) -> Tensor:
        """Normalised Hopfield retrieval (S, D) of states (S, D) from the rows of stored (N, D) where `kept` (N,) is True."""

        def rows(chunk: slice, states: Tensor, stored: Tensor) -> Tensor:
            similarity = self.beta * states[chunk] @ stored.T  # (s, N)
            if kept is not None:
                similarity = similarity.masked_fill(~kept, -torch.inf)
            return F.normalize(similarity.softmax(1) @ stored, dim=-1)

        return map_rows(rows, slice(0, len(states)), self.chunk_size, states, stored)
