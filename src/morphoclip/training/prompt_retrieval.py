"""Recall at k between held-out perturbations and their prompts, both ways, added up over batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class PromptRetrieval(Metric):
    """The share of held-out prompts found among the k nearest of all of them, from images and from text, with chance.

    A prompt's images are one query, the mean of their unit embeddings, since replicates share a prompt. Candidates are the
    distinct prompts that had images. Equal similarities count as all their orders, so that a collapsed model is at chance.

    Args:
        prompts: (U, E) embeddings of the distinct prompts.
        ks: numbers of candidates looked at.
    """

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, prompts: Tensor, ks: Sequence[int] = (1, 5, 10)) -> None:
        super().__init__()
        self.prompts, self.ks = F.normalize(prompts.float(), dim=1), tuple(ks)
        self.add_state("total", torch.zeros_like(self.prompts), dist_reduce_fx="sum")
        self.add_state("images", prompts.new_zeros(len(prompts), dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, images: Tensor, prompt: Tensor) -> None:
        """Add image embeddings (B, E) with the numbers (B,) of their prompts."""
        self.total.index_add_(0, prompt, F.normalize(images.float(), dim=1))
        self.images.index_add_(0, prompt, torch.ones_like(prompt, dtype=torch.float32))

    def compute(self) -> dict[str, Tensor]:
        """`recall_at_k_image_to_text` and `recall_at_k_text_to_image`, each with its `…_chance`, for each k below U.

        Empty with fewer than two prompts that had images.
        """
        present = self.images > 0
        images, prompts = F.normalize(self.total[present], dim=1), self.prompts.to(self.total)[present]
        count = len(images)
        similarity = images @ prompts.T  # (U', U')
        found: dict[str, Tensor] = {}
        for k in self.ks:
            if k >= count:
                break
            for way, rows in (("image_to_text", similarity), ("text_to_image", similarity.T)):
                found[f"recall_at_{k}_{way}"] = recall(rows, k)
                found[f"recall_at_{k}_{way}_chance"] = torch.tensor(k / count)
        return found


def recall(similarity: Tensor, k: int, tolerance: float = 1e-6) -> Tensor:
    """Mean over rows of the probability, over the orders of ties, that the diagonal is among the k largest of (U, U)."""
    own = similarity.diagonal()[:, None]
    ahead = (similarity > own + tolerance).sum(1)
    tied = ((similarity - own).abs() <= tolerance).sum(1)
    return ((k - ahead).clamp_min(0) / tied).clamp_max(1).mean()
