"""Candidates of a cross-modal loss over all ranks, and their matching with images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.distributed import gather_rows, rank, row_counts, world_size
from morphoclip.losses.chunks import sum_over_rows
from morphoclip.losses.context import LossContext


@dataclass(frozen=True)
class Match:
    """The matching of the N images and M other rows of all ranks by id; copies of an id count once.

    Attributes:
        image_counts, other_counts: rows on each rank.
        is_first: bool (M,), False on the second and later copies of an id.
        column: int64 (N,), the first row of `other` with the image's id.
        is_paired: bool (M,), first copies with at least one image.
    """

    image_counts: list[int]
    other_counts: list[int]
    is_first: Tensor
    column: Tensor
    is_paired: Tensor

    @property
    def local_image(self) -> slice:
        """This rank's rows among the N images."""
        return _rows_of(rank(), self.image_counts)

    @property
    def local_other(self) -> slice:
        """This rank's rows among the M other rows."""
        return _rows_of(rank(), self.other_counts)

    def gather_images(self, x: Tensor) -> Tensor:
        """Gather values (B, …) of this rank's images to those of all images (N, …)."""
        return gather_rows(x, self.image_counts)

    def column_weights(self, weights: Tensor) -> Tensor:
        """Sum weights between images (b, N) over the images of each id: weights of candidates (b, M)."""
        return weights.new_zeros(len(weights), len(self.is_first)).index_add_(1, self.column, weights)

    def images_per_candidate(self, dtype: torch.dtype) -> Tensor:
        """Number of images of each candidate, (M,), at least 1 so that it can be a divisor."""
        images = torch.ones_like(self.column, dtype=dtype)  # bincount would ask the device for the largest index
        return images.new_zeros(len(self.is_first)).index_add_(0, self.column, images).clamp_min_(1)


@dataclass(frozen=True)
class Candidates(Match):
    """A match with the normalised rows image (N, D) and other (M, D), gathered with gradient."""

    image: Tensor
    other: Tensor


def _rows_of(owner: int, counts: list[int]) -> slice:
    start = sum(counts[:owner])
    return slice(start, start + counts[owner])


def match_candidates(image: Tensor, other: Tensor, context: LossContext | None) -> Match:
    """Match the rows of all ranks by id. Without ids row i of `other` belongs to image i.

    Raises:
        ValueError: unequal numbers of rows without ids; ids that are missing or not one per row; an image whose id is on
            no rank.
    """
    image_counts = row_counts(image)
    if context is None or (context.image_id is None and context.other_id is None):
        if len(image) != len(other):
            raise ValueError(f"{len(image)} images but {len(other)} other rows: give a LossContext with their ids")
        other_counts = image_counts
        image_id = other_id = torch.arange(sum(image_counts), device=image.device)
    else:
        image_id, other_id = context.require("a cross-modal loss", "image_id", "other_id")
        if (len(image_id), len(other_id)) != (len(image), len(other)):
            raise ValueError(
                f"{len(image_id)} image ids for {len(image)} images, {len(other_id)} other ids for {len(other)} other rows: "
                "a LossContext has one id per row"
            )
        other_counts = row_counts(other)
        image_id, other_id = gather_rows(image_id, image_counts), gather_rows(other_id, other_counts)

    ordered, order = torch.sort(other_id, stable=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    found = torch.searchsorted(ordered, image_id).clamp_max(len(ordered) - 1)
    if not torch.equal(ordered[found], image_id):
        missing = image_id[ordered[found] != image_id].unique().tolist()
        raise ValueError(
            f"images have the ids {missing[:5]}, which are not in `other` on any rank: encode those prompts too"
        )
    column = order[found]
    nothing = torch.zeros_like(starts)
    return Match(
        image_counts=image_counts,
        other_counts=other_counts,
        is_first=nothing.index_copy(0, order, starts),
        column=column,
        is_paired=nothing.index_fill(0, column, True),
    )


def gather_candidates(image: Tensor, other: Tensor, context: LossContext | None) -> Candidates:
    """Match the rows of all ranks, normalise and gather them. Raises as `match_candidates` does."""
    match = match_candidates(image, other, context)
    return Candidates(
        **vars(match),
        image=gather_rows(F.normalize(image, dim=-1), match.image_counts),
        other=gather_rows(F.normalize(other, dim=-1), match.other_counts),
    )


def other_to_image(rows: Candidates, logit_scale: Tensor | float, chunk_size: int | None) -> Tensor:
    """Cross-entropy of each paired candidate to the images of its id (uniform target), averaged over candidates.

    Scaled such that the mean over ranks is the global mean.
    """
    per_candidate = rows.images_per_candidate(rows.image.dtype)

    column = rows.column[rows.local_image]
    own = logit_scale * (rows.image[rows.local_image] * rows.other[column]).sum(1)  # (B,)
    total = others_to_images(rows, logit_scale, chunk_size) - (own / per_candidate[column]).sum()
    return world_size() * total / rows.is_paired.sum()


def others_to_images(rows: Candidates, logit_scale: Tensor | float, chunk_size: int | None) -> Tensor:
    """Σ over this rank's paired candidates of log Σ_images e^logit."""

    def others(chunk: slice, scale: Tensor | float, image: Tensor, other: Tensor) -> Tensor:
        logits = scale * other[chunk] @ image.T  # (u, N)
        return (logits.logsumexp(1) * rows.is_paired[chunk]).sum()

    return sum_over_rows(others, rows.local_other, chunk_size, logit_scale, rows.image, rows.other)
