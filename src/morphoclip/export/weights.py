"""Weights, checkpoints and settings on disk; what is damaged is named together with the remedy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def damaged(path: str | Path, error: object) -> ValueError:
    """The error to raise of a file that cannot be what morphoclip wrote."""
    return ValueError(
        f"{path} is damaged or not what morphoclip wrote: copy or export the folder again ({type(error).__name__}: {error})"
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file that those may read who may read its neighbours; safetensors' own `save_file` grants its owner alone."""
    from safetensors.torch import save

    # clone: tensors that share storage (tied weights) are written each on its own, which safetensors insists on.
    path.write_bytes(save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is none, or cut short.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise damaged(path, error) from error


def tensors_hash(tensors: Mapping[str, Tensor], config: str = "") -> str:
    """sha256 over `config` and then over tensors by name."""
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: there is none.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise damaged(path, error) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A training checkpoint, on the CPU; nothing in it runs.

    Raises:
        ValueError: it is none, or cut short.
    """
    if path.suffix == ".safetensors":
        raise ValueError(f"{path} holds weights alone: give its folder, {path.parent}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of unpickling other bytes, any
        raise ValueError(f"{path} cannot be read as a checkpoint ({error}): it is damaged or no checkpoint") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} has no state_dict: it is no checkpoint of a training")
    return checkpoint
