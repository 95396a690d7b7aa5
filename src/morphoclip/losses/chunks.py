"""Rows in chunks that are computed again in the backward pass, so that memory holds chunk × N logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def _in_chunks(function: Callable[[slice], Tensor], rows: slice, chunk_size: int | None) -> list[Tensor]:
    if chunk_size is None or rows.stop - rows.start <= chunk_size:
        return [function(rows)]
    starts = range(rows.start, rows.stop, chunk_size)
    chunks = (slice(start, min(start + chunk_size, rows.stop)) for start in starts)
    return [checkpoint(function, chunk, use_reentrant=False) for chunk in chunks]


def sum_over_rows(function: Callable[[slice], Tensor], rows: slice, chunk_size: int | None) -> Tensor:
    """`function(rows)` for one that adds up over slices, at most `chunk_size` rows (None: all) at a time."""
    return torch.stack(_in_chunks(function, rows, chunk_size)).sum(dim=0)


def map_rows(function: Callable[[slice], Tensor], rows: slice, chunk_size: int | None) -> Tensor:
    """`function(rows)` for one that maps each row on its own, at most `chunk_size` rows (None: all) at a time."""
    return torch.cat(_in_chunks(function, rows, chunk_size))
