"""AdamW with schedules of learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from morphoclip.training.groups import parameter_groups
from morphoclip.training.schedules import constant, span_in_steps

Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class AdamW:
    """Settings of AdamW: call `build` once, and `set_step` before each step.

    Attributes:
        lr, weight_decay: peak values, multiplied by their schedules at (step, total steps).
        lr_scale, frozen: by prefix of parameter names, see `parameter_groups`.
    """

    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    lr_schedule: Schedule = constant
    weight_decay_schedule: Schedule = constant
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    frozen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def build(self, module: nn.Module) -> torch.optim.AdamW:
        """The optimizer of a module's trainable parameters."""
        groups = parameter_groups(module, weight_decay=self.weight_decay, lr_scale=self.lr_scale, frozen=self.frozen)
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.betas[0], self.betas[1]), eps=self.eps, fused=True)

    def set_step(self, optimizer: torch.optim.Optimizer, step: int, total: int) -> float:
        """Write the step's learning rates and weight decays into the groups; returns the unscaled learning rate."""
        lr = self.lr * self.lr_schedule(step, total)
        weight_decay = self.weight_decay * self.weight_decay_schedule(step, total)
        for group in optimizer.param_groups:
            frozen = group["frozen"]
            thaws = span_in_steps("frozen", frozen.get("steps"), frozen.get("share"), total)
            group["lr"] = 0.0 if step < thaws else lr * group["lr_scale"]
            if group["weight_decay"] > 0:
                group["weight_decay"] = weight_decay
        return lr
