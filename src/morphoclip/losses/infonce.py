"""InfoNCE between images and prompts, as in CLIP (Radford et al. 2021), exact for repeated prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from morphoclip.distributed import world_size
from morphoclip.losses.candidates import gather_candidates, others_to_images
from morphoclip.losses.chunks import sum_over_rows
from morphoclip.losses.context import LossContext
from morphoclip.losses.cross_modal import CrossModalLoss
from morphoclip.losses.precision import full_precision


class InfoNCELoss(CrossModalLoss):
    """½ (image→other + other→image) cross-entropy over all ranks' distinct candidates (Radford et al. 2021).

    Image→other is the mean over images; other→image is the mean over the candidates that have an image, with a target
    that is uniform over the images of that id, so that images of one prompt are not negatives of each other.

    Args:
        multi_positive: make both targets uniform over all rows of the same perturbation, where a candidate has weight
            equal to its number of images of that perturbation. Otherwise only rows of the same id are positives.
        chunk_size: rows of logits held at a time; None for all, B_local × B_global.
    """

    def __init__(self, multi_positive: bool = False, chunk_size: int | None = None) -> None:
        super().__init__()
        self.multi_positive = multi_positive
        self.chunk_size = chunk_size

    @full_precision
    def forward(
        self,
        image: Tensor,
        other: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | None = None,
        *,
        context: LossContext | None = None,
    ) -> Tensor:
        """Loss of image (B, D) against other (U, D), scaled such that the mean over ranks is the global loss.

        `logit_scale` multiplies the cosines; `logit_bias` shifts all logits equally and has no effect.

        Raises:
            ValueError: see `gather_candidates`; `multi_positive` without `context.perturbation`.
        """
        rows = gather_candidates(image, other, context)
        if self.multi_positive and context is not None:
            (label,) = context.require("InfoNCELoss(multi_positive=True)", "perturbation")
            label = rows.gather_images(label)
        else:
            label = rows.column
        # Number of images of the same label: a 1-D count instead of an N×N matrix.
        ordered = label.sort().values
        replicates = torch.searchsorted(ordered, label, right=True) - torch.searchsorted(ordered, label)
        # The sum of a candidate's weights over all images.
        candidate_total = torch.zeros(len(rows.other), dtype=image.dtype, device=image.device)
        candidate_total.index_add_(0, rows.column, replicates.to(image.dtype)).clamp_min_(1)

        def images(chunk: slice, scale: Tensor | float, image: Tensor, other: Tensor) -> Tensor:
            """(Σ image→other cross-entropy, Σ the positive logits' part of the other→image cross-entropy)."""
            logits = scale * image[chunk] @ other.T  # (b, M)
            weights = rows.column_weights((label[chunk, None] == label).to(logits.dtype))  # (b, M)
            positive = (weights / weights.sum(1, keepdim=True) * logits).sum()
            normaliser = logits.masked_fill(~rows.is_first, -torch.inf).logsumexp(1).sum()
            return torch.stack([normaliser - positive, (weights / candidate_total * logits).sum()])

        inputs = (logit_scale, rows.image, rows.other)
        from_image, positive = sum_over_rows(images, rows.local_image, self.chunk_size, *inputs)
        from_other = others_to_images(rows, logit_scale, self.chunk_size) - positive
        return 0.5 * world_size() * (from_image / len(rows.image) + from_other / rows.is_paired.sum())
