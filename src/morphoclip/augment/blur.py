"""Gaussian blur with its own σ per image (no recipe uses it by default)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from morphoclip.augment.draws import Source, uniform


@dataclass(frozen=True)
class Blur:
    """With probability `p` convolve all channels with a Gaussian of σ from U(sigma) pixels, mirrored at the border.

    Args:
        kernel: pixels across, odd.
        sigma: lowest and highest σ.
        p: probability that an image is blurred.
    """

    kernel: int = 23
    sigma: tuple[float, float] = (0.1, 2.0)
    p: float = 0.5

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"a blur kernel of {self.kernel} pixels has no centre: use an odd number")

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """float32 (count,): σ, 0 for images that stay sharp."""
        chosen, position = uniform(source, count, 2).unbind(1)
        low, high = self.sigma
        return torch.where(chosen < self.p, low + position * (high - low), 0)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        sigma = parameters.to(images)[:, None]
        reach = self.kernel // 2
        offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)) ** 2)  # σ = 0 keeps only the centre
        weights = weights / weights.sum(1, keepdim=True)
        x = F.pad(images, [reach] * 4, mode="reflect").transpose(0, 1)  # (C, B, H, W): one group of filters per image
        count = len(images)
        x = F.conv2d(x, weights.view(count, 1, 1, -1), groups=count)
        x = F.conv2d(x, weights.view(count, 1, -1, 1), groups=count)
        return x.transpose(0, 1).contiguous()
