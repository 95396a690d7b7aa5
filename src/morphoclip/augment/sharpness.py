"""Sharpness per channel: focus and the microscope's point spread differ between plates and stains."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform
from morphoclip.filters import binomial_blur


@dataclass(frozen=True)
class Sharpness:
    """Mix each channel with its binomially blurred self by a weight from U(-sharpen, blur); below 0 it sharpens."""

    sharpen: float = 0.6
    blur: float = 1.0

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count, C): weights of the blurred image."""
        return uniform(source, count, channels) * (self.blur + self.sharpen) - self.sharpen

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return torch.lerp(images, binomial_blur(images), parameters.to(images)[..., None, None])
