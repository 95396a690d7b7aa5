"""Views smaller than the crop they are cut from, at native resolution (no resize, as Kim et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RandomCrop:
    """Cut a square of `size` pixels at a random place, whole pixels, inside the image."""

    size: int

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """float32 (count, 2): place of the corner as a share of the room there is, y then x."""
        return torch.rand(count, 2, generator=generator)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, C, size, size).

        Raises:
            ValueError: images are smaller than the view.
        """
        room = torch.tensor([side - self.size + 1 for side in images.shape[-2:]])
        if room.min() < 1:
            height, width = images.shape[-2:]
            raise ValueError(
                f"crops of {height} x {width} pixels are smaller than views of {self.size}: cut larger ones"
            )
        corners = (parameters.cpu() * room).long()  # (B, 2)
        return (_cut if images.device.type == "cpu" else _gather)(images, corners, self.size)


def _cut(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """A copy an image; much the fastest on a CPU."""
    views = images.new_empty(*images.shape[:2], size, size)
    for view, image, (y, x) in zip(views, images, corners.tolist(), strict=True):
        view.copy_(image[:, y : y + size, x : x + size])
    return views


def _gather(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """The same in one kernel."""
    span = torch.arange(size)
    y, x = ((corners[:, axis, None] + span).to(images.device) for axis in (0, 1))  # (B, size) each
    b, c = (torch.arange(length, device=images.device) for length in images.shape[:2])
    return images[b[:, None, None, None], c[:, None, None], y[:, None, :, None], x[:, None, None, :]]
