"""The folder `towers` of an encoder folder: text and molecule towers into the joint space of the images.

    towers/config.json         settings of the towers, the training prompts, tokenizers learned from them
    towers/model.safetensors   weights of towers, heads and projections, frozen ones too; config.json has their sha256
    towers/<number>/           config.json and tokenizer files of a Hugging Face tower

The folder is complete: reading it needs no hub, run or cache, and it contains no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from morphoclip.checkpoints import tensors_hash
from morphoclip.export.weights import damaged, read_settings, read_tensors, write_tensors

TOWERS, CONFIG, WEIGHTS = "towers", "config.json", "model.safetensors"
FORMAT_VERSION = 1


def save_towers(
    folder: str | Path, described: Mapping[str, Any], state: Mapping[str, Any], encoder_sha256: str, source: object
) -> None:
    """Write `folder`/towers.

    Args:
        folder: the encoder folder being written.
        described: `conditions` (plain arguments), `prefix` (of the names in `state`), `files` (name -> bytes).
        state: state dict of the whole method; a value is a tensor, or a tokenizer as text.
        encoder_sha256: hash of the encoder whose space the towers share.
        source: origin of the towers, for error messages.

    Raises:
        ValueError: as in `write_files`.
    """
    target, prefix = Path(folder) / TOWERS, described["prefix"]
    target.mkdir()
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    tensors = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    write_files(target, described["files"], source)
    write_tensors(target / WEIGHTS, tensors)
    config = {
        "format_version": FORMAT_VERSION,
        "encoder_sha256": encoder_sha256,
        "sha256": tensors_hash(tensors),
        "conditions": described["conditions"],
        "state": {name: value for name, value in own.items() if name not in tensors},
    }
    (target / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_towers(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """(arguments of the conditions, their state dict, folder of the towers' files) of an encoder folder.

    Raises:
        FileNotFoundError: files of the towers are missing.
        ValueError: they are damaged, of a newer format, or were not exported together with the encoder.
    """
    target = Path(folder) / TOWERS
    for path in (target / CONFIG, target / WEIGHTS):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: export the run again with `morphoclip export`")
    config = read_settings(target / CONFIG)
    try:
        version, newer = config["format_version"], config["format_version"] > FORMAT_VERSION
        conditions, state = dict(config["conditions"]), dict(config["state"])
        made_with = config["encoder_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(target / CONFIG, error) from error
    if newer:
        raise ValueError(f"{target} has format {version}, this morphoclip reads {FORMAT_VERSION}: upgrade morphoclip")
    actual = read_settings(Path(folder) / CONFIG).get("sha256")
    if actual != made_with:
        raise ValueError(
            f"the towers in {folder} belong to encoder {str(made_with)[:12]}, but the folder holds encoder "
            f"{str(actual)[:12]}: export the run again and keep the folder together"
        )
    tensors = read_tensors(target / WEIGHTS)
    if config.get("sha256") not in (None, tensors_hash(tensors)):  # None: written before the hash was recorded
        raise ValueError(mixed(target / WEIGHTS))
    return conditions, tensors | state, target


def mixed(weights: Path) -> str:
    """The error message for weights whose sha256 differs from the one in their config."""
    return (
        f"{weights} does not match the hash in {weights.parent / CONFIG}: the folder mixes two exports or is damaged. "
        "Copy or export it again"
    )


def write_files(folder: Path, files: Mapping[str, bytes], source: object) -> None:
    """Write the files of a Hugging Face tower (name -> bytes) to a folder.

    Raises:
        ValueError: a name leads out of the folder; the message names `source`.
    """
    for name, content in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or path == folder.resolve():
            raise ValueError(f"{source} asks to write {name!r}, outside the folder of its towers: do not use that file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
