"""Rotation by any angle with a little zoom and shift: a cell has no up, and its nucleus is not centred to the pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Affine:
    """Rotate, zoom and shift about the centre, bilinear, mirrored at the border.

    Args:
        degrees: angles are drawn from U(−degrees, degrees).
        zoom: sizes from U(1 − zoom, 1 + zoom).
        shift: shifts along both axes from U(−shift, shift), as a share of the side.
    """

    degrees: float = 180.0
    zoom: float = 0.1
    shift: float = 0.05

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor:
        """float32 (count, 4): angle in radians, size, shift to the right and downwards."""
        uniform = torch.rand(count, 4, generator=generator) * 2 - 1
        reach = torch.tensor([math.radians(self.degrees), self.zoom, self.shift, self.shift])
        return uniform * reach + torch.tensor([0.0, 1.0, 0.0, 0.0])

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        angle, size, right, down = parameters.to(images).unbind(1)
        cos, sin = angle.cos() / size, angle.sin() / size
        # The grid says where each output pixel comes from, in half sides: the inverse of the transform.
        x = -2 * (right * cos - down * sin)
        y = -2 * (right * sin + down * cos)
        inverse = torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)  # (B, 2, 3)
        grid = F.affine_grid(inverse, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
