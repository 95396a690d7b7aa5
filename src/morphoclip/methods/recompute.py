"""A tower run chunk by chunk, each chunk computed again in the backward pass, so that any batch fits (Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from morphoclip.losses.chunks import fits, slices


def recomputed(tower: nn.Module, run: Callable[[slice], Tensor], rows: int, chunk_size: int | None) -> Tensor:
    """`run(slice(0, rows))` of a tower that treats each row on its own, at most `chunk_size` rows (None: all) at a time.

    The loss then sees all rows at once. Gradients equal those of the same chunks run one after another and kept, dropout
    included: each chunk's random state is restored before it is computed again.

    Raises:
        ValueError: a chunk size for a tower whose batch normalisation is training: it would see chunks, not the batch.
    """
    if chunk_size is not None:
        refuse_batch_norm(tower)
    whole = slice(0, rows)
    if chunk_size is None or fits(whole, chunk_size):
        return run(whole)
    return torch.cat([checkpoint(run, chunk, use_reentrant=False) for chunk in slices(whole, chunk_size)])


def refuse_batch_norm(tower: nn.Module) -> None:
    """Raise ValueError where a batch normalisation of the tower is in training mode."""
    for name, part in tower.named_modules():
        if isinstance(part, _BatchNorm) and part.training:
            raise ValueError(
                f"{type(tower).__name__}.{name} is a batch normalisation in training: in chunks it would normalise over a "
                "chunk and not over the batch. Set recompute=null (method.image or method.conditions) or take a tower without one"
            )
