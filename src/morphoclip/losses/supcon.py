"""Supervised contrastive loss between images of the same perturbation on different plates (Khosla et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.distributed import gather_rows, rank, row_counts, world_size
from morphoclip.losses.chunks import sum_over_rows
from morphoclip.losses.context import LossContext
from morphoclip.losses.precision import full_precision


class SupConLoss(nn.Module):
    """−1/|P(i)| Σ_{p∈P(i)} log softmax over the other images, averaged over anchors (Khosla et al. 2020, L_out).

    P(i) are the images of the same perturbation on another plate. Images of the same perturbation on the *same* plate are
    in neither numerator nor denominator: attracting them would reward the plate, repelling them would oppose the
    phenotype. Anchors without positives are not counted in the mean, but are negatives of others. The mean is over the
    anchors of all ranks; it is 0 if none has a positive.
    """

    def __init__(self, chunk_size: int | None = None) -> None:
        super().__init__()
        self.chunk_size = chunk_size

    @full_precision
    def forward(
        self,
        image: Tensor,
        other: Tensor | None = None,
        logit_scale: Tensor | float = 10.0,
        logit_bias: Tensor | None = None,
        *,
        context: LossContext | None = None,
    ) -> Tensor:
        """Loss of image (B, D); `other` and `logit_bias` are part of the common signature and are not used.

        Raises:
            ValueError: `context.perturbation` or `context.plate` is missing.
        """
        perturbation, plate = (context or LossContext()).require("SupConLoss", "perturbation", "plate")
        counts = row_counts(image)
        start = sum(counts[: rank()])
        image = gather_rows(F.normalize(image, dim=-1), counts)
        perturbation, plate = gather_rows(perturbation, counts), gather_rows(plate, counts)

        def positives(chunk: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """bool (b, N): same perturbation, another plate, both with a label, and all of these."""
            same = perturbation[chunk, None] == perturbation
            elsewhere = plate[chunk, None] != plate
            labelled = (perturbation[chunk, None] >= 0) & (perturbation >= 0)
            return same, elsewhere, labelled, same & elsewhere & labelled

        def anchors(chunk: slice, scale: Tensor | float, image: Tensor) -> Tensor:
            same, elsewhere, labelled, positive = positives(chunk)
            logits = scale * image[chunk] @ image.T
            kept = (~same | elsewhere) & labelled
            # A row without candidates would have an empty softmax with NaN gradient: it keeps its own logits instead.
            kept = kept | ~kept.any(1, keepdim=True)
            log_softmax = logits - logits.masked_fill(~kept, -torch.inf).logsumexp(1, keepdim=True)
            n_positive = positive.sum(1)
            return -((log_softmax * positive).sum(1) / n_positive.clamp_min(1)).sum()

        def with_positives(chunk: slice) -> Tensor:
            return positives(chunk)[-1].any(1).sum().to(image.dtype)

        own = slice(start, start + counts[rank()])
        total = sum_over_rows(anchors, own, self.chunk_size, logit_scale, image)
        count = sum_over_rows(with_positives, own, self.chunk_size)
        return world_size() * total / gather_rows(count[None], [1] * world_size()).sum().clamp_min(1)
