"""Losses are computed outside autocast, because bf16 is too coarse for their values (10.4025 becomes 10.375)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor, nn
from torch.amp import is_autocast_available

LOW = (torch.float16, torch.bfloat16)


def promote(value):
    """Convert half and bf16 tensors to float32, also inside lists, tuples and dataclasses; leave all else unchanged."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in LOW else value
    if isinstance(value, list | tuple):
        return type(value)(promote(v) for v in value)
    if is_dataclass(value):
        return replace(value, **{f.name: promote(getattr(value, f.name)) for f in fields(value)})
    return value


def _device(*values) -> str:
    """Device type of the first tensor among values and lists of tensors; "cpu" if there is none."""
    tensors = (v for value in values for v in (value if isinstance(value, list | tuple) else [value]))
    return next((v.device.type for v in tensors if isinstance(v, Tensor)), "cpu")


def full_precision(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator: run a loss's `forward` with autocast off and its arguments promoted; float64 stays float64."""

    @functools.wraps(forward)
    def wrapped(self, *args, **kwargs) -> Tensor:
        device = _device(*args, *kwargs.values())
        with torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext():
            return forward(self, *map(promote, args), **{name: promote(v) for name, v in kwargs.items()})

    return wrapped


class InFloat32(nn.Module):
    """Its weights and buffers stay in float32 when it is converted to fewer bits, in which a slow average stands still."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InFloat32:
        super()._apply(fn, recurse)
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = promote(tensor.data)
        return self
