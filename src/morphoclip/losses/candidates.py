"""Which rows of all ranks are the candidates of a cross-modal loss, and which images belong to which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.distributed import gather_rows, rank, row_counts
from morphoclip.losses.context import LossContext


@dataclass(frozen=True)
class Candidates:
    """Normalised rows of all ranks: N images, M others of which copies of an id count once.

    Attributes:
        image, other: (N, D), (M, D), gathered with gradient.
        local_image, local_other: slices of this rank's rows.
        is_first: bool (M,), False on the second and later copies of an id.
        column: int64 (N,), the first row of `other` with the image's id.
        is_paired: bool (M,), first copies that at least one image belongs to.
    """

    image: Tensor
    other: Tensor
    local_image: slice
    local_other: slice
    is_first: Tensor
    column: Tensor
    is_paired: Tensor
    image_counts: list[int]

    def gather_images(self, x: Tensor) -> Tensor:
        """Values (B, …) of this rank's images to those of all images (N, …)."""
        return gather_rows(x, self.image_counts)

    def column_weights(self, weights: Tensor) -> Tensor:
        """Weights between images (b, N) to weights of candidates (b, M): the sum over the images with that id."""
        return weights.new_zeros(len(weights), len(self.other)).index_add_(1, self.column, weights)


def gather_candidates(image: Tensor, other: Tensor, context: LossContext | None) -> Candidates:
    """Normalise, gather and match the rows of all ranks. Without a context row i of `other` belongs to image i.

    Raises:
        ValueError: no context but unequal numbers of rows; ids missing; an image whose id no rank holds in `other`.
    """
    image_counts = row_counts(image)
    image_start, other_start = sum(image_counts[: rank()]), 0
    if context is None:
        if len(image) != len(other):
            raise ValueError(f"{len(image)} images against {len(other)} others: give a LossContext with their ids")
        other_counts = image_counts
        image_id = other_id = torch.arange(sum(image_counts), device=image.device)
    else:
        image_id, other_id = context.require("a cross-modal loss", "image_id", "other_id")
        other_counts = row_counts(other)
        image_id, other_id = gather_rows(image_id, image_counts), gather_rows(other_id, other_counts)
    other_start = sum(other_counts[: rank()])

    ordered, order = torch.sort(other_id, stable=True)
    is_first = torch.ones_like(ordered, dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    is_first = torch.zeros_like(is_first).index_copy_(0, order, is_first)
    place = torch.searchsorted(ordered, image_id).clamp_max(len(ordered) - 1)
    if not torch.equal(ordered[place], image_id):
        lost = image_id[ordered[place] != image_id].unique().tolist()
        raise ValueError(f"images have the ids {lost[:5]}, which no rank holds in `other`: encode those prompts too")
    column = order[place]
    return Candidates(
        image=gather_rows(F.normalize(image, dim=-1), image_counts),
        other=gather_rows(F.normalize(other, dim=-1), other_counts),
        local_image=slice(image_start, image_start + len(image)),
        local_other=slice(other_start, other_start + len(other)),
        is_first=is_first,
        column=column,
        is_paired=torch.zeros_like(is_first).index_fill_(0, column, True),
        image_counts=image_counts,
    )
