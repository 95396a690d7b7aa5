"""Numbers that any rank may raise and all ranks act on at the same step."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from morphoclip.distributed import world_size


class Agreement:
    """Call `ask` once per step on all ranks; no step waits for the device.

    On several ranks an answer is that to the call before, which was reduced and copied while the step between ran.
    """

    def __init__(self) -> None:
        self._asked: tuple[Tensor, torch.cuda.Event | None] | None = None

    def ask(self, *numbers: int, device: torch.device) -> list[int]:
        """For each number, the largest of all ranks."""
        if world_size() == 1:
            return list(numbers)
        answer = self._answer(len(numbers))
        raised = torch.tensor(numbers, dtype=torch.int32).to(device, non_blocking=True)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        event = None
        if raised.is_cuda:
            raised = raised.to("cpu", non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self._asked = (raised, event)
        return answer

    def _answer(self, count: int) -> list[int]:
        if self._asked is None:
            return [0] * count
        raised, event = self._asked
        if event is not None:
            event.synchronize()
        return raised.tolist()
