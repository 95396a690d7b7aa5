"""Symmetries of a crop: cells have no preferred orientation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def _turned(images: Tensor, chosen: Tensor, dims: tuple[int, ...], turns: int | None = None) -> Tensor:
    """A copy whose rows `chosen` (bool (B,)) are flipped over `dims`, or rotated by `turns` quarter turns."""
    rows = chosen.nonzero().flatten().to(images.device)
    picked = images[rows]
    picked = picked.flip(dims) if turns is None else picked.rot90(turns, dims)
    return images.index_copy(0, rows, picked)


@dataclass(frozen=True)
class Flip:
    """Mirror horizontally and vertically, each with probability `p`."""

    p: float = 0.5

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """bool (count, 2): whether to flip left-right and up-down."""
        return torch.rand(count, 2, generator=generator, dtype=torch.float32) < self.p

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        horizontal, vertical = parameters.unbind(1)
        return _turned(_turned(images, horizontal, (-1,)), vertical, (-2,))


@dataclass(frozen=True)
class Rot90:
    """Rotate square images by 0, 90, 180 or 270 degrees, equally likely."""

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """int64 (count,): quarter turns."""
        return torch.randint(4, (count,), generator=generator)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return _turned(_turned(images, parameters >= 2, (-2, -1)), parameters % 2 == 1, (-2, -1), turns=1)
