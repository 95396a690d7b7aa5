"""The batch that data modules give to methods: one dataclass of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

KEPT_ON_HOST = ("condition", "mask")  # they choose the prompts and crops of a step, whose numbers the CPU has to know


@dataclass
class Batch:
    """A batch of crops, bags of crops, well pairs or cached features.

    B is the number of items on this rank, N the number of crops in a bag, C channels, M views, D features.
    Exactly one of `images` and `features` is given.

    Attributes:
        images: uint16 or uint8, (B, C, H, W), bags (B, N, C, H, W) or well pairs (B, 2, C, H, W).
        features: cached features (B, N, C, D); a profile vector is (B, 1, 1, D).
        mask: bool (B, N), False on padding rows of a bag.
        has_padding: whether a value of `mask` is False; found when the batch is made, so that a step need not ask the device.
        low, high: float32 (B, [N,] C), the intensities that scale to 0 and 1.
        plate, well, position, sample: int64 (B, [N]), codes of each crop's origin. `position` is the well position
            (A01 = 0), `sample` the row of the index.
        perturbation: int64 (B,), equal for replicates.
        condition: int64 (B,), row of the `PerturbationTable`, which gives the prompt.
        is_control: bool (B,), True for negative controls.
        on_host: `KEPT_ON_HOST`, small tensors that `to` keeps on the CPU, where reading them waits for nothing.
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
    has_padding: bool | None = None
    on_host: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.has_padding is None:
            self.has_padding = self.mask is not None and not bool(self.mask.all())
        if (self.images is None) == (self.features is None):
            raise ValueError("a Batch holds either images or features, and exactly one of them")

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name.

        Raises:
            ValueError: the batch does not have it, e.g. `images` in a batch of cached features.
        """
        value = getattr(self, name)
        if value is None:
            held = list(self.tensors())
            raise ValueError(f"the method needs a batch with {name}, but the data gives only {held}: choose other data")
        return value

    def __len__(self) -> int:
        return len(self.perturbation)

    def host(self, name: str) -> Tensor:
        """The tensor of that name on the CPU: one kept by `to`, or a copy, for which the CPU waits."""
        return self.on_host[name] if name in self.on_host else self.tensor(name).cpu()

    def tensors(self) -> dict[str, Any]:
        """Name -> tensor of those present."""
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply `function`, which may choose rows, to every tensor present; nothing is kept on the host."""
        changes: dict[str, Any] = {name: function(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changes, on_host={})

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        small = {name: tensor for name, tensor in self.tensors().items() if name in KEPT_ON_HOST}
        kept = {name: tensor for name, tensor in small.items() if tensor.device.type == "cpu"}
        moved = self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return replace(moved, on_host={**self.on_host, **kept})

    def pin_memory(self) -> Batch:
        return self.map(Tensor.pin_memory)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; the CPU does not wait for the copy, which is ordered before all later work there."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
