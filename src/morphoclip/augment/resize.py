"""Views at a random scale: part of the image resized to a fixed size (no recipe uses it by default)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform


@dataclass(frozen=True)
class ResizedCrop:
    """Cut a square of random area at a random position and resize it to `size` pixels.

    Bilinear with antialiasing, the filter of `torch.nn.functional.interpolate(antialias=True)`. The scale varies far
    more than cell size does, so a model trained on such views is not tuned to one magnification.

    Args:
        size: side of the view in pixels.
        area: lowest and highest fraction of the image's area, drawn from U(area).
    """

    size: int = 224
    area: tuple[float, float] = (0.12, 0.47)

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count, 3): fraction of the area, then the corner (y, x) as a fraction of the largest offset."""
        area, y, x = uniform(source, count, 3).unbind(1)
        low, high = self.area
        return torch.stack([low + area * (high - low), y, x], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, C, size, size)."""
        height, width = images.shape[-2:]
        area, y, x = parameters.to(images).unbind(1)
        side = (area * height * width).sqrt().clamp(max=min(height, width))  # (B,)
        rows = self._filter(height, y * (height - side), side)
        columns = self._filter(width, x * (width - side), side)
        return rows[:, None] @ images @ columns[:, None].transpose(-1, -2)  # (B, 1, s, H) (B, C, H, W) (B, 1, W, s)

    def _filter(self, length: int, start: Tensor, side: Tensor) -> Tensor:
        """(B, size, length): weight of each input pixel in each output pixel, a triangle at least one pixel wide."""
        scale = (side / self.size)[:, None, None]
        pixels = torch.arange(self.size, device=side.device, dtype=side.dtype)[:, None] + 0.5
        centre = start[:, None, None] + pixels * scale  # (B, size, 1)
        pixels = torch.arange(length, device=side.device, dtype=side.dtype) + 0.5
        weights = (1 - (pixels - centre).abs() / scale.clamp(min=1)).clamp(min=0)
        return weights / weights.sum(-1, keepdim=True)
