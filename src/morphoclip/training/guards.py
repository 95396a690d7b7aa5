"""Stop at a loss or gradient that is not finite, on all ranks together and without synchronising the device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from morphoclip.distributed import world_size


class NonFiniteGuard:
    """Checks each step's loss and gradient norm, reading the result while the next step runs.

    Call `watch` after gradients are reduced, and `check` before anything is saved, e.g. a checkpoint.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Tensor, torch.cuda.Event | None] | None = None

    def watch(self, step: int, loss: Tensor, gradient_norm: Tensor) -> None:
        """Record a step's loss (of this rank) and gradient norm (equal on all ranks), and `check` the step before.

        Raises:
            FloatingPointError: the step before was not finite; on all ranks at the same step.
        """
        # [loss, norm], non-zero if not finite. A loss may be NaN on one rank only, so the flags are reduced.
        verdict = (~torch.stack([loss.detach().isfinite(), gradient_norm.isfinite()])).to(torch.int32)
        if world_size() > 1:
            dist.all_reduce(verdict)
        self.check()
        event = None
        if verdict.is_cuda:
            verdict = verdict.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._pending = (step, verdict, event)

    def check(self) -> None:
        """Wait for the result of the last step.

        Raises:
            FloatingPointError: its loss or gradient norm was NaN or infinite.
        """
        if self._pending is None:
            return
        step, verdict, event = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        bad = [name for name, count in zip(("loss", "gradient norm"), verdict.tolist(), strict=True) if count]
        if bad:
            raise FloatingPointError(
                f"{' and '.join(bad)} at step {step} not finite: resume from the last checkpoint, which is not affected, with a "
                "lower learning rate, more warm-up or clipping (trainer.gradient_clip_val)"
            )
