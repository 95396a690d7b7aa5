"""Stop at a loss or gradient that is not finite or always 0, on all ranks together and without synchronising the device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from morphoclip.distributed import world_size

OVERFLOWS = 20  # in a row; a loss scale of 65,536, halved at each, is then below 1
ZEROS = 10  # gradients of exactly 0 in a row


def global_norm(gradients: list[Tensor]) -> Tensor:
    """L2 norm over all gradients, in float32 at least; over the shards of all ranks where they are sharded."""
    if not gradients:
        return torch.zeros(())
    low = gradients[0].dtype in (torch.float16, torch.bfloat16)
    norms = torch._foreach_norm(gradients, 2, torch.float32 if low else None)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class NonFiniteGuard:
    """Checks each step's loss and gradient norm, reading the result while the next step runs.

    Call `watch` after gradients are reduced and unscaled, and `check` before anything is saved, e.g. a checkpoint.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor, bool, torch.cuda.Event | None] | None = None
        self._overflows = self._zeros = 0

    def watch(self, step: int, loss: Tensor, gradient_norm: Tensor, *, scaled: bool = False) -> None:
        """Record a step's loss (of this rank) and gradient norm (equal on all ranks), and `check` the step before.

        Args:
            scaled: the loss is scaled (16-mixed), so that a gradient that is not finite makes the scaler skip the step and
                halve the scale.

        Raises:
            FloatingPointError: see `check`; on all ranks at the same step.
        """
        # [loss, norm], non-zero if not finite, and whether the norm is 0. A loss may be NaN on one rank only, so the flags
        # are reduced.
        bad = [~loss.detach().isfinite(), ~gradient_norm.isfinite(), gradient_norm == 0]
        verdict = torch.stack(bad).to(torch.int32)
        if world_size() > 1:
            dist.all_reduce(verdict)
        self.check()
        event = None
        if verdict.is_cuda:
            verdict = verdict.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._pending = (step, verdict, scaled, event)

    def check(self) -> None:
        """Wait for the result of the last step.

        Raises:
            FloatingPointError: its loss or gradient norm was NaN or infinite (with a scaled loss: 20 times in a row), or its
                gradients were all 0, as those of the nine steps before.
        """
        if self._pending is None:
            return
        step, verdict, scaled, event = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        *not_finite, zero = verdict.tolist()
        self._zeros = self._zeros + 1 if zero else 0
        if self._zeros == ZEROS:
            raise FloatingPointError(
                f"all gradients were exactly 0 at the last {ZEROS} steps (to step {step}), nothing is trained: is there only "
                "one crop or condition in a batch, is nothing masked, or are all weights frozen?"
            )
        bad = [name for name, count in zip(("loss", "gradient norm"), not_finite, strict=True) if count]
        self._overflows = self._overflows + 1 if bad else 0
        if bad and (not scaled or self._overflows == OVERFLOWS):
            often = f", {OVERFLOWS} steps in a row whatever the scale of the loss" if scaled else ""
            raise FloatingPointError(
                f"{' and '.join(bad)} at step {step} not finite{often}: resume from the last checkpoint, which is not affected, "
                f"with a lower learning rate, more warm-up or clipping (trainer.gradient_clip_val)"
                f"{', or trainer.precision=bf16-mixed' if scaled else ''}"
            )
