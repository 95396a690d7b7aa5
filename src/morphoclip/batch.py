"""The batch that data modules give to methods: one dataclass of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """A batch of crops, bags of crops, well pairs or cached features.

    B is the number of items on this rank, N the number of crops in a bag, C channels, M views, D features.
    Exactly one of `images` and `features` is given.

    Attributes:
        images: uint16 or uint8, (B, C, H, W), bags (B, N, C, H, W) or well pairs (B, 2, C, H, W).
        features: cached features (B, N, C, D); a profile vector is (B, 1, 1, D).
        mask: bool (B, N), False on padding rows of a bag.
        low, high: float32 (B, [N,] C), the intensities that scale to 0 and 1.
        plate, well, position, sample: int64 (B, [N]), codes of each crop's origin. `position` is the well position
            (A01 = 0), `sample` the row of the index.
        perturbation: int64 (B,), equal for replicates.
        condition: int64 (B,), row of the `PerturbationTable`, which gives the prompt.
        is_control: bool (B,), True for negative controls.
    """

    perturbation: Tensor
    condition: Tensor
    is_control: Tensor
    images: Tensor | None = None
    features: Tensor | None = None
    mask: Tensor | None = None
    low: Tensor | None = None
    high: Tensor | None = None
    plate: Tensor | None = None
    well: Tensor | None = None
    position: Tensor | None = None
    sample: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.images is None) == (self.features is None):
            raise ValueError("a Batch holds either images or features, and exactly one of them")

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            ValueError: the batch does not have it, e.g. `images` in a batch of cached features.
        """
        value = getattr(self, name)
        if value is None:
            held = [f.name for f in fields(self) if getattr(self, f.name) is not None]
            raise ValueError(f"the method needs a batch with {name}, but the data gives only {held}: choose other data")
        return value

    def __len__(self) -> int:
        return len(self.perturbation)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `function` to every tensor present."""
        changes = {f.name: function(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(self, **changes)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self.map(Tensor.pin_memory)
