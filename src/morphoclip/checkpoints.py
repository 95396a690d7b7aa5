"""Training checkpoints: written whole or not at all, frozen weights once per folder, and found again if one is torn."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from morphoclip.files import write_atomically

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
# Keys of a checkpoint: names of weights that training does not change, and the file beside it that holds them.
FROZEN, FROZEN_FILE = "frozen", "frozen_file"


def write_checkpoint(checkpoint: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint; its weights named in `checkpoint["frozen"]` go to one file per content beside it.

    The checkpoint before a `last.ckpt` is kept as `previous.ckpt`.

    Raises:
        OSError: it cannot be written; a checkpoint of that name is then still whole.
    """
    path = Path(path)
    state = dict(checkpoint["state_dict"])
    frozen = {name: state.pop(name) for name in checkpoint.get(FROZEN, ())}
    saved = {**checkpoint, "state_dict": state}
    if frozen:
        saved[FROZEN_FILE] = f"frozen-{tensors_hash(frozen)[:16]}.pt"
        if not (path.parent / saved[FROZEN_FILE]).is_file():
            with write_atomically(path.parent / saved[FROZEN_FILE]) as partial:
                _save(frozen, partial)
    with write_atomically(path) as partial:
        _save(saved, partial)
        if path.name == LAST and path.is_file():
            os.replace(path, path.with_name(PREVIOUS))


def _save(content: Mapping[str, Any], path: Path) -> None:
    """torch.save, and an OSError where torch reports a failed write as a RuntimeError."""
    try:
        with path.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        raise OSError(f"cannot write {path}: {error.__context__ or error}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A training checkpoint, loaded to the CPU with `weights_only=True`, so that no code in it runs.

    Raises:
        ValueError: it is not a checkpoint, or is torn, or its frozen weights are missing.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        raise ValueError(f"{path} holds only weights: give its folder, {path.parent}")
    checkpoint = _load(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"{path} has no state_dict: it is not a training checkpoint")
    if FROZEN_FILE in checkpoint:
        frozen = path.parent / checkpoint.pop(FROZEN_FILE)
        if not frozen.is_file():
            raise ValueError(
                f"{path} needs {frozen.name} beside it, the weights that training does not change: copy both"
            )
        checkpoint["state_dict"] |= _load(frozen)
    return checkpoint


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling arbitrary bytes can raise anything
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged or not a checkpoint"
        ) from error


def last_checkpoint(run: str | Path) -> Path | None:
    """The newest whole checkpoint of a run folder; None if there is none. Warns about one that is torn or missing."""
    folder = Path(run) / "checkpoints"
    last, previous = folder / LAST, folder / PREVIOUS
    for path in (last, previous):
        fault = _fault(path)
        if fault is None:
            return path
        if path.exists() or (path == last and previous.exists()):
            warnings.warn(f"{path} {fault}: it is passed over", stacklevel=2)
    return None


def step_of(path: str | Path) -> int:
    """Optimizer steps done at a checkpoint; its weights are not read."""
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint file, by its checksums; None if nothing is."""
    if not path.is_file():
        return "is missing"
    try:
        with zipfile.ZipFile(path) as file:
            return "is damaged" if file.testzip() else None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):
        return "is torn"


def another_model(own: Mapping[str, Any], given: Mapping[str, Any], error: Exception) -> ValueError:
    """One line on how the weights `given` differ from a model's `own`, which torch lists name by name in `error`."""
    shapes = [
        name for name in own.keys() & given.keys() if getattr(own[name], "shape", 0) != getattr(given[name], "shape", 0)
    ]
    found = {
        "missing": own.keys() - given.keys(),
        "not in this model": given.keys() - own.keys(),
        "of another shape": shapes,
    }
    faults = [f"{len(names)} {what} ({min(names)} …)" for what, names in found.items() if names]
    return ValueError(
        f"the weights are of another model, {', '.join(faults) or error}: give the encoder and the method they were trained with, "
        "or start a new run"
    )


def tensors_hash(tensors: Mapping[str, Tensor], config: str = "") -> str:
    """sha256 over `config` and then the tensors sorted by name."""
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
