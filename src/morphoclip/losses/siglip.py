"""The pairwise sigmoid loss of SigLIP (Zhai et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.distributed import rank, ring_shift, world_size
from morphoclip.losses.candidates import match_candidates
from morphoclip.losses.chunks import sum_over_rows
from morphoclip.losses.context import LossContext
from morphoclip.losses.cross_modal import CrossModalLoss
from morphoclip.losses.precision import full_precision


class SigLIPLoss(CrossModalLoss):
    """−(1/B) Σ_ij log σ(y_ij (z_ij + b)), y_ij = 1 if prompt j belongs to image i, else −1 (Zhai et al. 2023).

    The sum over pairs is divided by the number of images; a mean over pairs would be B times too small. Start with a
    logit scale of 10 and a bias of −10. Prompts are passed around a ring of ranks; a prompt on several ranks counts once.
    """

    uses_logit_bias = True

    def __init__(self, chunk_size: int | None = None) -> None:
        super().__init__()
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
        """Loss of image (B, D) against other (U, D), scaled such that the mean over ranks is the global loss."""
        match = match_candidates(image, other, context)
        image, visitors = F.normalize(image, dim=-1), F.normalize(other, dim=-1)
        column = match.column[match.local_image]
        bias = 0.0 if logit_bias is None else logit_bias
        total = image.new_zeros(())
        for turn in range(world_size()):
            owner = (rank() - turn) % world_size()
            if turn > 0:
                visitors = ring_shift(visitors, match.other_counts[owner])
            first = sum(match.other_counts[:owner])
            columns = torch.arange(first, first + len(visitors), device=image.device)
            is_first = match.is_first[columns]

            def pairs(
                chunk: slice, scale, bias, image, visitors, columns: Tensor = columns, is_first: Tensor = is_first
            ) -> Tensor:
                z = scale * image[chunk] @ visitors.T + bias  # (b, U)
                is_own = column[chunk, None] == columns
                return -(F.logsigmoid(torch.where(is_own, z, -z)) * is_first).sum()

            inputs = (logit_scale, bias, image, visitors)
            total = total + sum_over_rows(pairs, slice(0, len(image)), self.chunk_size, *inputs)
        return world_size() * total / sum(match.image_counts)
