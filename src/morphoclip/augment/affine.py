"""Rotation by any angle, with a little zoom and shift: cells have no orientation and are never centred exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.augment.draws import Source, uniform


@dataclass(frozen=True)
class Affine:
    """Rotate, zoom and shift about the centre, bilinear, mirrored at the border.

    Args:
        degrees: angles are drawn from U(−degrees, degrees).
        zoom: scales are drawn from U(1 − zoom, 1 + zoom).
        shift: shifts along both axes are drawn from U(−shift, shift), as a fraction of the image side.
    """

    degrees: float = 180.0
    zoom: float = 0.1
    shift: float = 0.05

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count, 4): angle in radians, scale, shift to the right and downwards."""
        angle, scale, right, down = (uniform(source, count, 4) * 2 - 1).unbind(1)
        parameters = [angle * math.radians(self.degrees), 1 + scale * self.zoom, right * self.shift, down * self.shift]
        return torch.stack(parameters, dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        angle, size, right, down = parameters.to(images).unbind(1)
        cos, sin = angle.cos() / size, angle.sin() / size
        # The grid holds the source coordinates of each output pixel, in half sides: the inverse of the transform.
        x = -2 * (right * cos - down * sin)
        y = -2 * (right * sin + down * cos)
        inverse = torch.stack([torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)], 1)  # (B, 2, 3)
        grid = F.affine_grid(inverse, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
