"""AdamW with schedules of learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import nn

from morphoclip.training.groups import parameter_groups
from morphoclip.training.schedules import constant, span_in_steps

Schedule = Callable[[int, int], float]
FUSED_ON = ("cuda", "cpu")


@dataclass(frozen=True)
class AdamW:
    """Settings of AdamW: call `build` once, and `set_step` before each step.

    Attributes:
        lr, weight_decay: peak values, multiplied by their schedules at (step, total steps).
        lr_scale, frozen: by prefix of parameter names, see `parameter_groups`.
        layer_decay: factor of the learning rate from a block (or stage) of the encoder to the one before it, the stem being the
            first (Clark et al. 2020); None for the same rate in all.
        fused: update all weights by one kernel, on a GPU, on a CPU and where weights are divided among ranks; on other
            devices torch's default is used.
    """

    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    lr_schedule: Schedule = constant
    weight_decay_schedule: Schedule = constant
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    frozen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    fused: bool = True
    layer_decay: float | None = None

    def build(self, module: nn.Module) -> torch.optim.AdamW:
        """The optimizer of a module's trainable parameters."""
        by_depth = {} if self.layer_decay is None else rates_by_depth(cast(Layered, module).depths(), self.layer_decay)
        groups = parameter_groups(
            module, weight_decay=self.weight_decay, lr_scale=self.lr_scale, frozen=self.frozen, by_name=by_depth
        )
        fused = self.fused and all(p.device.type in FUSED_ON for group in groups for p in group["params"])
        optimizer = torch.optim.AdamW(
            groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=fused or None
        )
        optimizer.register_load_state_dict_post_hook(lay_out_as_weights)
        return optimizer

    def rate(self, step: int, total: int) -> float:
        """The unscaled learning rate of a step."""
        return self.lr * self.lr_schedule(step, total)

    def set_step(self, optimizer: torch.optim.Optimizer, step: int, total: int) -> float:
        """Write the step's learning rates and weight decays into the groups; returns the unscaled learning rate."""
        lr = self.rate(step, total)
        weight_decay = self.weight_decay * self.weight_decay_schedule(step, total)
        for group in optimizer.param_groups:
            frozen = group["frozen"]
            thaws = span_in_steps("frozen", frozen.get("steps"), frozen.get("share"), total)
            group["lr"] = 0.0 if step < thaws else lr * group["lr_scale"]
            if group["weight_decay"] > 0:
                group["weight_decay"] = weight_decay
        return lr


class Layered(Protocol):
    """A module that knows how deep its weights lie (`methods.base.Method`)."""

    def depths(self) -> dict[str, int]: ...


def rates_by_depth(depths: Mapping[str, int], decay: float) -> dict[str, float]:
    """Name -> factor of the learning rate: 1 in the deepest block, `decay` in the one before, and so on.

    Raises:
        ValueError: `decay` is not above 0 and at most 1.
    """
    if isinstance(decay, bool) or not 0 < decay <= 1:
        raise ValueError(f"optimizer.layer_decay={decay!r}: give a number above 0 and at most 1, e.g. 0.75, or null")
    last = max(depths.values(), default=0)
    return {name: decay ** (last - depth) for name, depth in depths.items()}


def lay_out_as_weights(optimizer: torch.optim.Optimizer) -> None:
    """Give loaded averages the memory layout of their weights, which fused kernels expect.

    They differ where `trainer.channels_last` has changed since the checkpoint.
    """
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
