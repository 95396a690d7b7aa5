"""NT-Xent, the loss of SimCLR (Chen et al. 2020)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.distributed import gather_rows, rank
from morphoclip.losses.precision import full_precision


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross-entropy between two views (Chen et al. 2020, eq. 1).

    The 2B views of this rank are anchors and the 2BW views of all ranks are keys: the target of an anchor is the other
    view of its image, and its own column is left out. B must be the same on all ranks.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    @full_precision
    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Mean loss of this rank's anchors for embeddings z1, z2 (B, D) of two views of the same images.

        Raises:
            ValueError: z1 and z2 differ in shape, or are of the only image on all ranks.
        """
        if z1.shape != z2.shape:
            raise ValueError(f"the two views must have the same shape, not {tuple(z1.shape)} and {tuple(z2.shape)}")
        anchors = F.normalize(torch.cat([z1, z2]), dim=-1)  # (2B, D)
        keys = gather_rows(anchors)  # (2BW, D)
        if len(keys) == 2:
            raise ValueError(
                "one image alone has no negatives, its loss is always 0: the batch needs two crops or more"
            )
        own = torch.arange(len(anchors), device=anchors.device)
        first = rank() * len(anchors)
        logits = anchors @ keys.T / self.temperature  # (2B, 2BW)
        logits = logits.scatter(1, (first + own)[:, None], -torch.inf)
        return F.cross_entropy(logits, first + own.roll(len(z1)))
