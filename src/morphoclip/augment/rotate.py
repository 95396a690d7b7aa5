"""Quarter turns: with flips, all eight symmetries of a square crop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rot90:
    """Rotate square images by 0, 90, 180 or 270 degrees, equally likely."""

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """int64 (count,): quarter turns."""
        return torch.randint(4, (count,), generator=generator)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        turns = parameters[:, None, None, None]
        images = torch.where(turns >= 2, images.flip((-2, -1)), images)
        return torch.where(turns % 2 == 1, images.rot90(1, (-2, -1)), images)
