"""Transformer blocks, compiled or recomputed in the backward pass; names of weights, and so checkpoints, stay the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BLOCKS = "blocks"  # the attribute that holds them in timm's transformers and in ours


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of all transformers in a model: of encoders, teachers and decoders.

    Raises:
        ValueError: there are none.
    """
    lists = [part for name, part in model.named_modules() if name.rpartition(".")[2] == BLOCKS]
    found = [block for part in lists if isinstance(part, nn.Sequential | nn.ModuleList) for block in part]
    if not found:
        raise ValueError(
            "trainer.compile and trainer.recompute_blocks act on transformer blocks, and this model has none: leave them out, "
            "or choose a vision transformer as encoder"
        )
    return found


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile each block by itself, for each size of its input anew; the first steps take minutes.

    Args:
        backend: of torch.compile.

    Raises:
        ValueError: there are no blocks, or no such backend.
    """
    if backend not in torch._dynamo.list_backends(exclude_tags=None):
        usual = ", ".join(torch._dynamo.list_backends())
        raise ValueError(f"trainer.compile={backend}: give true, false, or a backend of torch.compile ({usual})")
    for block in transformer_blocks(model):
        if isinstance(block.forward, Recomputed):  # outside of the compiled code, where the random state is restored
            block.forward.forward = torch.compile(block.forward.forward, backend=backend, dynamic=False)
        else:
            block.compile(backend=backend, dynamic=False)


def recompute_blocks(model: nn.Module) -> None:
    """Keep only the inputs of blocks for the backward pass, which computes them again (Chen et al. 2016).

    Memory for activations falls to that of one block; a step takes about a third longer. Dropped paths are the same in both.
    """
    for block in transformer_blocks(model):
        if not isinstance(block.forward, Recomputed):
            block.forward = Recomputed(block.forward)  # a module around it would rename its weights


class Recomputed:
    """`forward` of a block, recomputed in the backward pass while a gradient is needed."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **options)
        return checkpoint(self.forward, *inputs, use_reentrant=False, **options)
