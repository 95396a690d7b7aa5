"""Weights in local files of any origin, as names and float32 tensors; no code in a file is run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Parts of checkpoints that hold no weights of a model.
NO_WEIGHTS = ("optimizer", "optimizer_states", "lr_schedulers", "loops", "callbacks", "scaler", "ema_optimizer")
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a checkpoint of torch, on the CPU.

    Nested dicts are joined by dots (`teacher` ▶ `backbone.norm.weight` is `teacher.backbone.norm.weight`); what is not a
    tensor, and the state of optimizers, are left out. Floating-point tensors come in float32, whatever the file holds.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is torn, is not a file of weights, has pickled code, which is not run, or holds no tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {path}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    weights = {name: in_float32(tensor) for name, tensor in _leaves(content, "")}
    if not weights:
        raise ValueError(f"{path} holds no weights")
    return weights


def in_float32(tensor: Tensor) -> Tensor:
    """A floating-point tensor in float32; others unchanged."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is torn or not a safetensors file: {error}") from error


def _read_checkpoint(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(
            [argparse.Namespace]
        ):  # arguments that DINO and MAE save; plain attributes
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling arbitrary bytes can raise anything
        code = _GLOBAL.search(str(error))
        if code is not None:
            raise ValueError(
                f"{path} holds pickled code ({code[1]}), which is not run: save the state_dict() of the model alone"
            ) from error
        raise ValueError(f"{path} is torn or not a file of weights ({type(error).__name__})") from error


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield name, node.detach()
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if name or str(key) not in NO_WEIGHTS:
                yield from _leaves(value, f"{name}.{key}" if name else str(key))
