"""Reading and writing weights and settings, with clear errors for damaged files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def damaged(path: str | Path, error: object) -> ValueError:
    """The error for a file that morphoclip cannot have written."""
    return ValueError(
        f"{path} is damaged or was not written by morphoclip: copy or export the folder again ({type(error).__name__}: {error})"
    )


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names they have without torch.compile, which puts `_orig_mod.` before those of a module."""
    return {name.replace("_orig_mod.", ""): value for name, value in tensors.items()}


def in_float16(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, floating-point ones in half precision.

    Raises:
        ValueError: a value beyond the range of float16.
    """
    halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in halved.items():
        if value.is_floating_point() and not value.isfinite().all() and tensors[name].isfinite().all():
            raise ValueError(f"{name} holds values beyond the range of float16 (65504): export in float32")
    return halved


def in_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those in half precision or bfloat16 widened to float32, which loses nothing."""
    narrow = (torch.float16, torch.bfloat16)
    return {name: value.float() if value.dtype in narrow else value for name, value in tensors.items()}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file with default permissions; safetensors' own `save_file` makes it readable by its owner only."""
    from safetensors.torch import save

    # clone: safetensors refuses tensors that share storage (tied weights).
    path.write_bytes(save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is not a safetensors file, or is truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise damaged(path, error) from error


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: the file does not hold a JSON object.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise damaged(path, error) from error
