"""Missing stains (no recipe uses it by default)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from morphoclip.augment.draws import Source, uniform


@dataclass(frozen=True)
class DropChannel:
    """Set each channel to 0 with probability `p`; at least one channel of an image stays."""

    p: float = 0.2

    def draw(self, count: int, channels: int, source: Source) -> Tensor:
        """bool (count, C): the channels that are kept."""
        drawn = uniform(source, count, channels)
        return (drawn >= self.p) | (drawn == drawn.amax(dim=1, keepdim=True))

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        return images * parameters.to(images.device)[:, :, None, None]
