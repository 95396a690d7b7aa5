"""Intensity jitter per channel (Kim et al. 2025): stains differ in brightness and contrast between plates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform


@dataclass(frozen=True)
class Color:
    """Shift each channel by U(-shift, shift), clip, raise to a power of U(gamma), clip.

    torchvision's ColorJitter and kornia's hue are for RGB only; this jitter takes any number of channels.
    """

    shift: float = 0.3
    gamma: tuple[float, float] = (0.5, 1.5)

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count, 2, C): shifts, then powers."""
        shift, power = uniform(source, count, 2, channels).unbind(1)
        low, high = self.gamma
        return torch.stack([(shift * 2 - 1) * self.shift, low + power * (high - low)], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        shift, gamma = parameters.to(images)[..., None, None].unbind(1)  # (B, C, 1, 1) each
        # The sum makes a new tensor, so the steps after it may work in place. Powers of values in [0, 1] stay in it.
        return (images + shift).clamp_(0, 1).pow_(gamma)
