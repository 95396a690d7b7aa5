"""Sums over rows in chunks that are computed again in the backward pass, so that memory holds chunk × N logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sum_over_rows(rows_sum: Callable[[slice], Tensor], rows: slice, chunk_size: int | None) -> Tensor:
    """`rows_sum(rows)`, as a sum over chunks of at most `chunk_size` rows (None: all at once).

    Args:
        rows_sum: maps a slice of rows to a tensor that adds up over slices.
    """
    if chunk_size is None or rows.stop - rows.start <= chunk_size:
        return rows_sum(rows)
    starts = range(rows.start, rows.stop, chunk_size)
    chunks = (slice(start, min(start + chunk_size, rows.stop)) for start in starts)
    return torch.stack([checkpoint(rows_sum, chunk, use_reentrant=False) for chunk in chunks]).sum(dim=0)
