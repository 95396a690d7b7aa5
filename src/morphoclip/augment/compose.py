"""The interface of a transform, and several transforms applied in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from morphoclip.augment.draws import Source


class Transform(Protocol):
    """A random transform in two calls: one draws the parameters, the other applies them.

    `draw(count, channels, source)` gives the parameters of `count` images, one row per image, from `uniform(source, …)`
    alone, on the device of the source. `apply(images, parameters)` takes float images (B, C, H, W) in [0, 1] on any
    device, and leaves them unchanged. On a GPU neither may wait for the device: no copies, no `.item()`, no boolean index.
    """

    def draw(self, count: int, channels: int, source: Source) -> Tensor: ...

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Compose:
    """Transforms applied in order; an empty list returns the images unchanged."""

    transforms: Sequence[Transform] = ()

    def draw(self, count: int, channels: int, source: Source) -> list[Tensor]:
        """Parameters of each transform for `count` images."""
        return [transform.draw(count, channels, source) for transform in self.transforms]

    def apply(self, images: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Transform images (B, C, H, W); row i of each of `parameters` belongs to image i."""
        for transform, rows in zip(self.transforms, parameters, strict=True):
            images = transform.apply(images, rows)
        return images
