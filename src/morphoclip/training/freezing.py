"""Freezing parts of an encoder, for a whole training or its first steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

PROJECTION = "encoder.projection."  # into a joint space: new in most trainings, so that it always trains


class Freezable(Protocol):
    """The part of a method's interface that freezing uses."""

    resting: list[nn.Parameter]
    is_sharded: bool

    def encoders(self) -> list[nn.Module]: ...

    def depths(self) -> dict[str, int]: ...

    def named_parameters(self) -> Any: ...


class Freezing(pl.Callback):
    """Freezes the stem and first blocks of an encoder, or all of it but its projection into a joint space.

    Frozen means: no gradient, no weight decay, no update of batch statistics, no dropout or drop path, and no time spent in
    the backward pass. Weights that are frozen for the whole training are not among those of the optimizer or of DDP. Those
    that thaw are: until then they get a gradient of 0, which is dropped before the optimizer's step.

    Args:
        blocks: number of blocks (or stages of a convolutional network) frozen with the stem; None for all of the encoder.
        steps: optimizer steps until they thaw; None for never.

    Raises:
        ValueError: more blocks than the encoder has, or a wrong number.
    """

    def __init__(self, blocks: int | None, steps: int | None = None) -> None:
        for name, value, least in (("blocks", blocks, 0), ("steps", steps, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ValueError(f"freeze.{name}={value!r}: give a number of at least {least}")
        self.blocks, self.steps = blocks, steps
        self.parameters: list[nn.Parameter] = []
        self.modules: list[nn.Module] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        method = cast(Freezable, pl_module)
        names = frozen_names(method.depths(), self.blocks)
        self.parameters = [p for name, p in method.named_parameters() if name in names and p.requires_grad]
        if not self.parameters:
            raise ValueError("freeze: nothing of this encoder is trained, so that there is nothing to freeze")
        chosen = {id(parameter) for parameter in self.parameters}
        self.modules = [part for encoder in method.encoders()[:1] for part in frozen_modules(encoder, chosen)]
        self.modules += self._twins(method)
        if self.steps is None:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
        elif pl_module.device_mesh is not None:
            raise ValueError(
                "freeze.steps needs whole weights in each rank: use trainer=ddp, or leave freeze.steps=null"
            )

    def _twins(self, method: Freezable) -> list[nn.Module]:
        """The modules of a teacher that are copies of frozen ones of the student."""
        student, *others = method.encoders()
        names = {name for name, part in student.named_modules() if any(part is frozen for frozen in self.modules)}
        return [part for other in others for name, part in other.named_modules() if name in names]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            what = "the encoder" if self.blocks is None else f"the encoder's stem and first {self.blocks} blocks"
            count = sum(parameter.numel() for parameter in self.parameters)
            until = "for the whole training" if self.steps is None else f"until step {self.steps:,}"
            print(f"freeze      {what} ({count:,} weights) {until}", flush=True)

    def is_frozen(self, trainer: pl.Trainer) -> bool:
        """Whether the next optimizer step leaves the parts as they are."""
        return self.steps is None or trainer.global_step < self.steps

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        frozen = self.is_frozen(trainer)
        for part in self.modules:
            if part.training == frozen:
                part.train(not frozen)
        if self.steps is not None:
            cast(Freezable, pl_module).resting = self.parameters if frozen else []
            for parameter in self.parameters:
                parameter.requires_grad_(not frozen)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if self.steps is not None and self.is_frozen(trainer):
            for parameter in self.parameters:
                parameter.grad = None  # AdamW would count the step, and let weights decay


def frozen_names(depths: dict[str, int], blocks: int | None) -> set[str]:
    """Names of the parameters in the stem and the first `blocks` blocks; all but a projection for None.

    Raises:
        ValueError: there are fewer blocks.
    """
    last = max(depths.values(), default=0)
    if blocks is not None and blocks > last:
        raise ValueError(f"freeze.blocks={blocks}, but this encoder has {last}: freeze=encoder freezes all of it")
    inside = {name: depth for name, depth in depths.items() if not name.startswith(PROJECTION)}
    return {name for name, depth in inside.items() if blocks is None or depth <= blocks}


def frozen_modules(encoder: nn.Module, chosen: set[int]) -> list[nn.Module]:
    """The outermost modules all of whose trainable parameters, at least one, are chosen (by id)."""
    found: list[nn.Module] = []
    for part in encoder.children():
        own = {id(parameter) for parameter in part.parameters() if parameter.requires_grad}
        if own and own <= chosen:
            found.append(part)
        elif own & chosen:
            found += frozen_modules(part, chosen)
    return found


def with_zero_gradients(loss: Tensor, resting: Sequence[nn.Parameter]) -> Tensor:
    """The loss with a term of 0 that gives resting weights, which took no part in it, a gradient of 0, as DDP waits for."""
    if not resting:
        return loss
    for parameter in resting:
        parameter.requires_grad_(True)
    return loss + 0 * torch.stack([parameter[(0,) * parameter.ndim].to(loss.dtype) for parameter in resting]).sum()
