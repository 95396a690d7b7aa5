"""The interface of a transform, and several transforms applied in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """A random transform in two calls, so that all ranks draw the same parameters and each applies its own rows.

    `draw(count, channels, generator)` gives the parameters of `count` images on the CPU, one row per image.
    `apply(images, parameters)` takes float images (B, C, H, W) in [0, 1] on any device, and leaves them unchanged. The
    parameters may stay on the CPU, where reading them does not synchronise with the device.
    """

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor: ...

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Compose:
    """Transforms applied in order; an empty list returns the images unchanged."""

    transforms: Sequence[Transform] = ()

    def draw(self, count: int, channels: int, generator: torch.Generator) -> list[Tensor]:
        """Parameters of each transform for `count` images."""
        return [transform.draw(count, channels, generator) for transform in self.transforms]

    def apply(self, images: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Transform images (B, C, H, W); row i of each of `parameters` belongs to image i."""
        for transform, rows in zip(self.transforms, parameters, strict=True):
            images = transform.apply(images, rows)
        return images
