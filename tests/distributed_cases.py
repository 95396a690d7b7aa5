"""The cases of tests/test_distributed.py, and helpers to write them.

A case takes (rank, world) and returns tensors whose mean over ranks must be the single process's: losses, gradients of
weights that all ranks share (DDP averages them) and values that are equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CASES: dict[str, Callable[[int, int], list[Tensor]]] = {}


def case(function: Callable[[int, int], list[Tensor]]):
    CASES[function.__name__] = function
    return function


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def own_rows(rank: int, world: int, first_share: int) -> slice:
    """Rank 0 has the first `first_share` rows, rank 1 the rest; one process all."""
    return slice(0, None) if world == 1 else (slice(0, first_share), slice(first_share, None))[rank]


def weights(seed: int = 9) -> Tensor:
    """A layer shared by all ranks: its gradient is what DDP averages."""
    return randn(6, 4, seed=seed).requires_grad_()
