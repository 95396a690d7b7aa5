"""Gradient caching: a tower runs in chunks that are recomputed in the backward pass, so that any batch fits (Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from morphoclip.losses.chunks import fits, slices


def recomputed(tower: nn.Module, run: Callable[[slice], Tensor], rows: int, chunk_size: int | None) -> Tensor:
    """`run(slice(0, rows))` of a row-wise tower, computed for at most `chunk_size` rows (None: all) at a time.

    The loss sees all rows at once. Gradients equal those without recomputation, including dropout: the random state of
    each chunk is restored before it is recomputed.

    Raises:
        ValueError: a chunk size for a tower with batch norm in training mode, which would normalise over chunks.
    """
    if chunk_size is not None:
        refuse_batch_norm(tower)
    whole = slice(0, rows)
    if chunk_size is None or fits(whole, chunk_size):
        return run(whole)
    return torch.cat([checkpoint(run, chunk, use_reentrant=False) for chunk in slices(whole, chunk_size)])


def refuse_batch_norm(tower: nn.Module) -> None:
    """Raise ValueError if a batch norm of the tower is in training mode."""
    for name, part in tower.named_modules():
        if isinstance(part, _BatchNorm) and part.training:
            raise ValueError(
                f"{type(tower).__name__}.{name} is a batch norm in training mode and would normalise over chunks instead of "
                "the batch: set recompute=null (method.image or method.conditions), or use a tower without batch norm"
            )
