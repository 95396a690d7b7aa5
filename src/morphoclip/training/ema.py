"""Teachers: exponential moving averages of a student."""

from __future__ import annotations

from contextlib import nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from morphoclip.losses.precision import LOW, InFloat32


class Teacher(InFloat32):
    """A copy of `student` without gradients, updated by `update`.

    It always runs without dropout and drop path, but in training its batch norms use the statistics of the batch. Its weights
    stay in float32 when the student's are converted to fewer bits, in which a slow average would stand still; it then
    computes in the precision of its input.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.module = deepcopy(student).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)  # attention's dropout depends on its own module's mode, so all must be in evaluation mode
        self.training = mode
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(mode)
        return self

    @torch.no_grad()
    def forward(self, x: Tensor, *args, **kwargs) -> Tensor:
        with torch.autocast(x.device.type, x.dtype) if x.dtype in LOW else nullcontext():
            return self.module(x, *args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Set parameters to momentum · teacher + (1 − momentum) · student; copy buffers."""
        own: list[Tensor] = list(self.module.parameters())
        new = [value.to(mine.dtype) for value, mine in zip(student.parameters(), own, strict=True)]
        torch._foreach_lerp_(own, new, 1 - momentum)
        for buffer, value in zip(self.module.buffers(), student.buffers(), strict=True):
            buffer.copy_(value)
