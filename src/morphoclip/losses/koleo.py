"""A regulariser that spreads embeddings over the sphere, as in DINOv2 (Oquab et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morphoclip.distributed import gather_rows, rank
from morphoclip.losses.precision import full_precision


class KoLeoLoss(nn.Module):
    """−mean log of the distance to the nearest other embedding (Kozachenko-Leonenko; Sablayrolles et al. 2019).

    Neighbours are found among the embeddings of all ranks. B must be the same on all ranks.
    """

    @full_precision
    def forward(self, embeddings: Tensor) -> Tensor:
        """Loss of this rank's embeddings (B, D), which are L2-normalised first."""
        x = F.normalize(embeddings, dim=-1)
        everyone = gather_rows(x)
        own = rank() * len(x) + torch.arange(len(x), device=x.device)
        with torch.no_grad():
            nearest = (x @ everyone.T).scatter(1, own[:, None], -torch.inf).argmax(dim=1)
        # The small constant keeps the gradient finite if two embeddings coincide.
        return -((x - everyone[nearest]).norm(dim=1) + 1e-8).log().mean()
