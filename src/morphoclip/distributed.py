"""Collectives with exact gradients: with DDP's averaging, they equal those of one process on the joined batch.

Two facts give this. A gather whose backward sums the gradient over ranks and takes this rank's slice is exact under DDP's
mean. So is a mean over ranks with identity backward, if every rank adds the same function of that mean to its loss.
Without an initialised process group every function is the single-process one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def rank() -> int:
    """The rank of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes W, 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def row_counts(x: Tensor) -> list[int]:
    """Number of rows (first dimension) on each rank. Synchronises the device, so call it at most once per step."""
    if world_size() == 1:
        return [len(x)]
    counts = torch.empty(world_size(), dtype=torch.int64, device=x.device)
    dist.all_gather_into_tensor(counts, torch.tensor([len(x)], device=x.device))
    return counts.tolist()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, counts: Sequence[int]) -> Tensor:
        ctx.counts = counts
        longest = max(counts)
        padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]) if len(x) < longest else x.contiguous()
        rows = x.new_empty(longest * len(counts), *x.shape[1:])
        dist.all_gather_into_tensor(rows, padded)
        if min(counts) == longest:
            return rows
        return torch.cat([part[:count] for part, count in zip(rows.split(longest), counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.split(ctx.counts)[rank()], None


def gather_rows(x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all ranks, in rank order, differentiable.

    Args:
        x: (B, ...); only B may differ between ranks.
        counts: B of every rank from `row_counts`; None if it is the same everywhere, which saves a synchronisation.

    Returns:
        (sum of B, ...). The backward pass sums the gradient over ranks and keeps this rank's rows.
    """
    if world_size() == 1:
        return x
    return _Gather.apply(x, [len(x)] * world_size() if counts is None else counts)


class _RingShift(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, incoming: int) -> Tensor:
        ctx.shape = x.shape
        return _exchange(x, x.new_empty(incoming, *x.shape[1:]), step=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _exchange(gradient, gradient.new_empty(ctx.shape), step=-1), None


def _exchange(outgoing: Tensor, incoming: Tensor, step: int) -> Tensor:
    """Send to the rank `step` after this one and receive from the rank `step` before it."""
    to, source = (rank() + step) % world_size(), (rank() - step) % world_size()
    sends = [dist.P2POp(dist.isend, outgoing.contiguous(), to), dist.P2POp(dist.irecv, incoming, source)]
    for work in dist.batch_isend_irecv(sends):
        work.wait()
    return incoming


def ring_shift(x: Tensor, incoming: int) -> Tensor:
    """Send `x` (B, ...) to the next rank and return the previous rank's `incoming` rows, differentiable.

    All ranks must call it, in the same order; the gradient is sent in the opposite direction.
    """
    return _RingShift.apply(x, incoming)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


def all_reduced_sum(x: Tensor) -> Tensor:
    """Σ over ranks, differentiable: the backward pass sums the gradient over ranks too.

    For quantities that each rank uses differently afterwards, such as the moments of a batch norm.
    """
    return x if world_size() == 1 else _Sum.apply(x)


@torch.no_grad()
def mean_over_ranks(values: Mapping[str, Tensor | float], device: torch.device) -> dict[str, Tensor]:
    """Mean of each scalar over ranks, without gradient, by one collective; the names must be the same on all ranks."""
    found = {
        name: value.detach() if isinstance(value, Tensor) else torch.full((), value, device=device)  # without a copy
        for name, value in values.items()
    }
    if world_size() == 1:
        return found
    total = torch.stack([value.double() for value in found.values()])
    dist.all_reduce(total)
    return dict(zip(found, (total / world_size()).unbind(), strict=True))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        mean = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(mean)
        return mean / world_size()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def all_reduced_mean(x: Tensor) -> Tensor:
    """Mean over ranks with an identity backward, for a term that all ranks add to their losses equally (me-max)."""
    return x if world_size() == 1 else _Mean.apply(x)
