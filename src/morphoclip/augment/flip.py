"""Mirror images: a cell has no left or right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Flip:
    """Mirror horizontally and vertically, each with probability `p`."""

    p: float = 0.5

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """bool (count, 2): whether to flip left-right and up-down."""
        return torch.rand(count, 2, generator=generator) < self.p

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        horizontal, vertical = parameters[..., None, None, None].unbind(1)  # (B, 1, 1, 1) each
        images = torch.where(horizontal, images.flip(-1), images)
        return torch.where(vertical, images.flip(-2), images)
