"""A loss of our own between two views."""

import torch.nn.functional as F
from torch import Tensor, nn


class CosineLoss(nn.Module):
    """1 − the mean cosine of two views (B, D) of each crop."""

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(one, two).mean()
