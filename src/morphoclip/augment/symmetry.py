"""Symmetries of a crop: cells have no preferred orientation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform
from morphoclip.augment.gather import gather_pixels


@dataclass(frozen=True)
class Flip:
    """Mirror horizontally and vertically, each with probability `p`."""

    p: float = 0.5

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """bool (count, 2): whether to flip left-right and up-down."""
        return uniform(source, count, 2) < self.p

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        parameters = parameters.to(images.device)
        if images.device.type != "cpu":
            return gather_pixels(images, *flip_index(images, parameters))
        horizontal, vertical = parameters.unbind(1)
        return _turned(_turned(images, horizontal, (-1,)), vertical, (-2,))


@dataclass(frozen=True)
class Rot90:
    """Rotate square images by 0, 90, 180 or 270 degrees, equally likely."""

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """int64 (count,): quarter turns."""
        return (uniform(source, count) * 4).long()

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        parameters = parameters.to(images.device)
        if images.device.type != "cpu":
            return gather_pixels(images, *rotation_index(images, parameters))
        halves = _turned(images, parameters >= 2, (-2, -1))
        return _turned(halves, parameters % 2 == 1, (-2, -1), turns=1)


def flip_index(images: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (B, H, 1) and columns (B, 1, W) that flips by `parameters` (B, 2) take their pixels from."""
    horizontal, vertical = parameters[:, :, None].unbind(1)  # (B, 1) each
    y, x = (torch.arange(side, device=images.device) for side in images.shape[-2:])
    return _mirrored(y, vertical)[:, :, None], _mirrored(x, horizontal)[:, None, :]


def rotation_index(images: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns (B, H, H) that rotations by `turns` (B,) take the pixels of square images from."""
    half, quarter = turns[:, None, None] >= 2, turns[:, None, None] % 2 == 1
    side = images.shape[-1]
    x = torch.arange(side, device=images.device).expand(side, -1)
    y = x.T
    y, x = torch.where(quarter, x, y), torch.where(quarter, side - 1 - y, x)
    return _mirrored(y, half), _mirrored(x, half)


def _mirrored(index: Tensor, chosen: Tensor) -> Tensor:
    """Indices 0 … n − 1 along the last axis, counted from the end where `chosen`; the two are broadcast."""
    return torch.where(chosen, index.shape[-1] - 1 - index, index)


def _turned(images: Tensor, chosen: Tensor, dims: tuple[int, ...], turns: int | None = None) -> Tensor:
    """A copy whose rows `chosen` (bool (B,)) are flipped over `dims`, or rotated by `turns` quarter turns.

    On a CPU it is faster to copy the other rows as they are than to choose pixels by index.
    """
    rows = chosen.nonzero().flatten()
    picked = images[rows]
    picked = picked.flip(dims) if turns is None else picked.rot90(turns, dims)
    return images.index_copy(0, rows, picked)
