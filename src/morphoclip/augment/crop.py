"""Views cut from a larger crop at native resolution (no resizing, as in Kim et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomCrop:
    """Cut a square of `size` pixels at a random position inside the image, in whole pixels."""

    size: int

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """float32 (count, 2): the corner (y, x) as a fraction of the largest possible offset."""
        return torch.rand(count, 2, generator=generator, dtype=torch.float32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, C, size, size).

        Raises:
            ValueError: images are smaller than the view.
        """
        room = torch.tensor([side - self.size + 1 for side in images.shape[-2:]])
        if room.min() < 1:
            height, width = images.shape[-2:]
            raise ValueError(
                f"crops of {height} x {width} pixels are smaller than views of {self.size}: prepare larger crops or choose smaller views"
            )
        corners = (parameters.cpu() * room).long()  # (B, 2)
        return (_cut if images.device.type == "cpu" else _gather)(images, corners, self.size)


def _cut(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """One copy per image, the fastest way on a CPU."""
    views = images.new_empty(*images.shape[:2], size, size)
    for view, image, (y, x) in zip(views, images, corners.tolist(), strict=True):
        view.copy_(image[:, y : y + size, x : x + size])
    return views


def _gather(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """The same as `_cut`, as one indexing operation for a GPU."""
    span = torch.arange(size)
    y, x = ((corners[:, axis, None] + span).to(images.device) for axis in (0, 1))  # (B, size) each
    b, c = (torch.arange(length, device=images.device) for length in images.shape[:2])
    return images[b[:, None, None, None], c[:, None, None], y[:, None, :, None], x[:, None, None, :]]
