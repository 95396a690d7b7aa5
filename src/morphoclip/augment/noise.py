"""Gaussian noise that is the same on every device (no recipe uses it by default)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import GAMMA, Source, mix, shifted, signed, uniform

MASK = 2**32 - 1


@dataclass(frozen=True)
class Noise:
    """Add independent Gaussian noise of σ from U(sigma) to every pixel, and clip to [0, 1].

    `draw` gives a σ and a seed per image; the noise of a pixel is SplitMix64 of (seed, pixel index), computed on the device
    of the images. So an image gets the same noise alone or in a batch, on any rank and any device, up to rounding.
    """

    sigma: tuple[float, float] = (0.0, 0.05)

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float64 (count, 2): σ, and a seed of 31 bits."""
        low, high = self.sigma
        sigma, seed = uniform(source, count, 2, dtype=torch.float64).unbind(1)
        return torch.stack([low + sigma * (high - low), (seed * 2**31).floor()], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        sigma, seed = parameters.to(images.device).unbind(1)
        index = torch.arange(images[0].numel(), device=images.device)
        words = mix(mix(seed.long())[:, None] + (index + 1) * signed(GAMMA))  # (B, C·H·W)
        first, second = shifted(words, 32), words & MASK
        # Box-Muller: two uniform numbers, the first above 0, give a normal one
        radius = (-2 * torch.log((first.to(torch.float32) + 1) / (MASK + 2))).sqrt()
        normal = radius * torch.cos(2 * math.pi / (MASK + 1) * second.to(torch.float32))
        scaled = normal.view_as(images).to(images) * sigma.to(images)[:, None, None, None]
        return (images + scaled).clamp_(0, 1)
