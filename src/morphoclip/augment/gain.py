"""Gain and offset per channel: differences of staining, exposure and background between plates, not phenotypes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from morphoclip.augment.draws import Source, uniform


@dataclass(frozen=True)
class Gain:
    """Multiply each channel by exp U(-log_gain, log_gain) and add U(-offset, offset); nothing is clipped.

    The percentiles that scale a field depend on its brightest cells and its background, so one phenotype on two plates
    differs by a gain and an offset. `Color` shifts ten times as far, which hides most of a cell on fields of mean .1.
    """

    log_gain: float = 0.3
    offset: float = 0.03

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count, 2, C): log gains, then offsets."""
        log_gain, offset = (uniform(source, count, 2, channels) * 2 - 1).unbind(1)
        return torch.stack([log_gain * self.log_gain, offset * self.offset], dim=1)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        log_gain, offset = parameters.to(images)[..., None, None].unbind(1)  # (B, C, 1, 1) each
        return torch.addcmul(offset, images, log_gain.exp())
