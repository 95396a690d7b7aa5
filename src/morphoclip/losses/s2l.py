"""The soft-weighted sigmoid locked loss of MolPhenix (Fradkin et al. 2024)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.distributed import world_size
from morphoclip.losses.candidates import gather_candidates
from morphoclip.losses.chunks import sum_over_rows
from morphoclip.losses.context import LossContext
from morphoclip.losses.cross_modal import CrossModalLoss
from morphoclip.losses.precision import full_precision


class S2LLoss(CrossModalLoss):
    """−(1/B) Σ_ij [w_ij log σ(z_ij) + (γ − δ w_ij) log σ(−z_ij)] (Fradkin et al. 2024).

    w_ij = 1 − (4/π) arctan(d_ij²/c), set to 0 below the threshold, where d_ij is the Euclidean distance of images i and j
    in the frozen image space, given as `context.image_frozen` on the scale of c. With the published constants both terms
    of a true pair (w = 1) have weight 1, as γ − δ = 1, so that its optimum is σ(z) = .5; with γ = δ = 1 it is σ(z) = 1. A
    prompt shared by several images has the sum of their weights, at most 1: beyond 1 the repelling term would change its
    sign and the loss would have no minimum.
    """

    uses_logit_bias = True
    uses_frozen_images = True

    def __init__(
        self,
        gamma: float = 1.75,
        delta: float = 0.75,
        c: float = 0.3,
        threshold: float = 0.75,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.delta = delta
        self.c = c
        self.threshold = threshold
        self.chunk_size = chunk_size

    @full_precision
    def forward(
        self,
        image: Tensor,
        other: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        *,
        context: LossContext | None = None,
    ) -> Tensor:
        """Loss of image (B, D) against other (U, D); the context needs `image_frozen` (B, D').

        Without ids in the context row i of `other` belongs to image i.
        """
        (frozen,) = (context or LossContext()).require("S2LLoss", "image_frozen")
        rows = gather_candidates(image, other, context)
        frozen = rows.gather_images(frozen.detach())
        bias = 0.0 if logit_bias is None else logit_bias

        def images(chunk: slice, scale: Tensor | float, bias: Tensor | float, image: Tensor, other: Tensor) -> Tensor:
            z = scale * image[chunk] @ other.T + bias  # (b, M)
            weights = self.weights(frozen[chunk], frozen)
            own = rows.column[chunk, None] == rows.column
            weights = rows.column_weights(weights.masked_fill(own, 1)).clamp_max(1)
            terms = weights * F.logsigmoid(z) + (self.gamma - self.delta * weights) * F.logsigmoid(-z)
            return -(terms * rows.is_first).sum()

        inputs = (logit_scale, bias, rows.image, rows.other)
        return world_size() * sum_over_rows(images, rows.local_image, self.chunk_size, *inputs) / len(rows.image)

    def weights(self, a: Tensor, b: Tensor) -> Tensor:
        """w (A, B) of frozen embeddings a (A, D') and b (B, D')."""
        squared = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
        w = 1 - 4 / math.pi * torch.arctan(squared / self.c)
        return w.where(w >= self.threshold, 0)
