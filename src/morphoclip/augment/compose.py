"""What a transform is, and several in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Transform(Protocol):
    """A random transform of images in two halves, so that ranks can draw alike and each apply its own rows.

    `draw(count, channels, generator)` gives the parameters of `count` images on the CPU, one row an image.
    `apply(images, parameters)` takes float images (B, C, H, W) in [0, 1] on any device, and leaves them unchanged. The
    parameters may stay on the CPU, where looking at them makes no device wait.
    """

    def draw(self, count: int, channels: int, generator: torch.Generator) -> Tensor: ...

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other; none leaves images as they are."""

    transforms: Sequence[Transform] = ()

    def draw(self, count: int, channels: int, generator: torch.Generator) -> list[Tensor]:
        """Parameters of each transform for `count` images."""
        return [transform.draw(count, channels, generator) for transform in self.transforms]

    def apply(self, images: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Transform images (B, C, H, W) by the rows of `parameters` that are theirs."""
        for transform, rows in zip(self.transforms, parameters, strict=True):
            images = transform.apply(images, rows)
        return images
