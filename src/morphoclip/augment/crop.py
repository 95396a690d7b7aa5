"""Views cut from a larger crop at native resolution (no resizing, as in Kim et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform
from morphoclip.augment.gather import gather_pixels


@dataclass(frozen=True)
class RandomCrop:
    """Cut a square of `size` pixels at a random position inside the image, in whole pixels."""

    size: int

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count, 2): the corner (y, x) as a fraction of the largest possible offset."""
        return uniform(source, count, 2)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, C, size, size).

        Raises:
            ValueError: images are smaller than the view.
        """
        height, width = images.shape[-2:]
        if min(height, width) < self.size:
            raise ValueError(
                f"crops of {height} x {width} pixels are smaller than views of {self.size}: prepare larger crops or choose smaller views"
            )
        offsets = torch.stack([parameters[:, 0] * (height - self.size + 1), parameters[:, 1] * (width - self.size + 1)])
        corners = offsets.long().to(images.device)  # (2, B)
        if images.device.type == "cpu":
            top, left = corners.tolist()
            return _cut(images, top, left, self.size)
        return gather_pixels(images, *crop_index(corners, self.size))


def crop_index(corners: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The rows (B, size, 1) and columns (B, 1, size) of crops whose first pixels are at `corners` (2, B)."""
    y, x = corners[:, :, None] + torch.arange(size, device=corners.device)
    return y[:, :, None], x[:, None, :]


def _cut(images: Tensor, top: list[int], left: list[int], size: int) -> Tensor:
    """One copy per image, the fastest way on a CPU."""
    views = images.new_empty(*images.shape[:2], size, size)
    for view, image, y, x in zip(views, images, top, left, strict=True):
        view.copy_(image[:, y : y + size, x : x + size])
    return views
