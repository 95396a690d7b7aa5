"""Views smaller than the crop they are cut from, at native resolution (METHODS §1: no resize)."""

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
        corners = (parameters.cpu() * room).long().to(images.device)  # (B, 2)
        span = torch.arange(self.size, device=images.device)
        y, x = (corners[:, :1] + span, corners[:, 1:] + span)  # (B, size) each
        b = torch.arange(len(images), device=images.device)
        cut = images[b[:, None, None], :, y[:, :, None], x[:, None, :]]  # (B, size, size, C)
        return cut.permute(0, 3, 1, 2)
