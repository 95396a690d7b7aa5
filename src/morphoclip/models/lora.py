"""Low-rank updates of the linear layers of a network (Hu et al. 2021), by peft, and merging them into its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

BASE, DOWN, UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"  # peft's names
NOT_ADAPTED = ("pooler", "head")


def with_lora(model: nn.Module, rank: int, alpha: float, dropout: float = 0.0) -> nn.Module:
    """The model with trainable low-rank updates in the linear layers of its blocks; all other weights are frozen.

    The updates start at 0 and are scaled by alpha / rank.

    Raises:
        ImportError: peft is not installed.
        ValueError: the model has no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("low-rank updates need peft: pip install 'morphoclip[peft]'") from error
    layers = [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and not any(word in name for word in NOT_ADAPTED)
    ]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no linear layer for low-rank updates: use a vision transformer")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=layers)  # type: ignore[arg-type]  # peft takes any number for alpha
    return inject_adapter_in_model(config, model.requires_grad_(False))


def merged(state: Mapping[str, Any], rank: int, alpha: float) -> dict[str, Any]:
    """A state dict without low-rank updates: each is added to the weights below it, under their plain names."""
    whole: dict[str, Any] = {}
    for name, value in state.items():
        if name.endswith((DOWN, UP)):
            continue
        layer, base, kind = name.partition(BASE)
        if base and kind == "weight":
            value = value + update(state[f"{layer}{UP}"], state[f"{layer}{DOWN}"], alpha / rank)
        whole[f"{layer}.{kind}" if base else name] = value
    return whole


def update(up: Tensor, down: Tensor, scale: float) -> Tensor:
    """What a low-rank update adds to a weight (out, in): scale · up (out, r) · down (r, in)."""
    with torch.no_grad():
        return scale * (up.float() @ down.float()).to(up.dtype)
