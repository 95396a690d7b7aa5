"""Sums and maps over rows in chunks, so that memory holds chunk × N logits; outside autocast like every loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def slices(rows: slice, chunk_size: int) -> Iterator[slice]:
    """`rows` in slices of at most `chunk_size`."""
    for start in range(rows.start, rows.stop, chunk_size):
        yield slice(start, min(start + chunk_size, rows.stop))


def fits(rows: slice, chunk_size: int | None) -> bool:
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} must be at least 1, or None for all rows at once")
    return chunk_size is None or rows.stop - rows.start <= chunk_size


def sum_over_rows(function: Callable[..., Tensor], rows: slice, chunk_size: int | None, *inputs: Any) -> Tensor:
    """`function(rows, *inputs)`, sums () or (P,) over rows, computed for at most `chunk_size` rows (None: all) at a time.

    Gradients reach only `inputs`; anything else the function uses is constant. The gradients of a chunk are computed
    together with its value, so that its logits are freed and not computed twice. No second derivatives.
    """
    return function(rows, *inputs) if fits(rows, chunk_size) else _ChunkedSum.apply(function, rows, chunk_size, *inputs)


def map_rows(function: Callable[..., Tensor], rows: slice, chunk_size: int | None, *inputs: Tensor) -> Tensor:
    """`function(rows, *inputs)` (R, …), a row-wise map, computed for at most `chunk_size` rows (None: all) at a time.

    Gradients reach only `inputs`; anything else the function uses is constant. The backward pass recomputes each chunk,
    so that only the inputs and the graph of one chunk are held. No second derivatives.
    """
    return function(rows, *inputs) if fits(rows, chunk_size) else _ChunkedMap.apply(function, rows, chunk_size, *inputs)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], rows: slice, chunk_size: int, *inputs: Any) -> Tensor:
        wanted = [n for n, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        given = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
        leaves = [given[n].requires_grad_() for n in wanted]
        gradients: list[list[Tensor]] = []  # of each sum with respect to each leaf
        total: Tensor | None = None
        for chunk in slices(rows, chunk_size):
            with torch.set_grad_enabled(bool(leaves)):
                parts = function(chunk, *given).reshape(-1).unbind()
            if leaves:
                gradients = gradients or [[torch.zeros_like(leaf) for leaf in leaves] for _ in parts]
                for n, part in enumerate(parts):
                    found = torch.autograd.grad(part, leaves, retain_graph=n + 1 < len(parts))
                    for gradient, more in zip(gradients[n], found, strict=True):
                        gradient += more
                    del found, more  # free them before the next chunk: they are as large as all inputs
            value = torch.stack([part.detach() for part in parts])
            total = value if total is None else total + value
        ctx.wanted, ctx.count = wanted, len(inputs)
        ctx.save_for_backward(*(gradient for sums in gradients for gradient in sums))
        assert total is not None  # there is at least one chunk
        return total if len(total) > 1 else total[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None] * (3 + ctx.count)
        for n, gradient in enumerate(ctx.saved_tensors):
            part, leaf = divmod(n, len(ctx.wanted))
            slot, scaled = 3 + ctx.wanted[leaf], outer.reshape(-1)[part] * gradient
            found[slot] = scaled if found[slot] is None else found[slot].add_(scaled)
        return tuple(found)


class _ChunkedMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function: Callable[..., Tensor], rows: slice, chunk_size: int, *inputs: Tensor) -> Tensor:
        ctx.function, ctx.chunks = function, list(slices(rows, chunk_size))
        ctx.save_for_backward(*inputs)
        return torch.cat([function(chunk, *inputs) for chunk in ctx.chunks])

    @staticmethod
    @once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        inputs = [x.detach().requires_grad_(n) for x, n in zip(ctx.saved_tensors, needed, strict=True)]
        leaves = [x for x in inputs if x.requires_grad]
        parts = outer.split([chunk.stop - chunk.start for chunk in ctx.chunks])
        for chunk, part in zip(ctx.chunks, parts, strict=True):
            with (
                torch.enable_grad(),
                torch.autocast(outer.device.type, enabled=False),
            ):  # like the forward pass of a loss
                torch.autograd.backward(ctx.function(chunk, *inputs), part, inputs=leaves)  # adds to their .grad
        return None, None, None, *(x.grad for x in inputs)
