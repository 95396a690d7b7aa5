"""The folder `towers` of an encoder folder: what turns words and structures into the joint space of its images.

    towers/config.json         how the towers are built, the training prompts, tokenizers learned from them
    towers/model.safetensors   weights of towers, heads and projections, frozen ones too; config.json has their sha256
    towers/<number>/           config.json and tokenizer files of a Hugging Face tower

The folder is complete: no hub, run or cache is asked when it is read, and nothing in it is code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from morphoclip.export.weights import damaged, read_settings, read_tensors, tensors_hash, write_tensors

TOWERS, CONFIG, WEIGHTS = "towers", "config.json", "model.safetensors"
FORMAT_VERSION = 1


def save_towers(
    folder: str | Path, described: Mapping[str, Any], state: Mapping[str, Any], encoder_sha256: str, source: object
) -> None:
    """Write `folder`/towers.

    Args:
        folder: an encoder folder in the making.
        described: `conditions` (plain arguments), `prefix` (of the names in `state`), `files` (name -> bytes).
        state: state dict of the whole method; a value is a tensor, or a tokenizer as text.
        encoder_sha256: of the encoder whose space the towers share.
        source: where they come from, for errors.

    Raises:
        ValueError: as `write_files`.
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
    """(arguments of the conditions, their state dict, where the towers' files lie) of an encoder folder.

    Raises:
        FileNotFoundError: the folder holds no towers, or not all of them.
        ValueError: they are damaged, of a newer format, or of another encoder or export than what lies beside them.
    """
    target = Path(folder) / TOWERS
    for path in (target / CONFIG, target / WEIGHTS):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: export the run again with `morphoclip export`")
    config = read_settings(target / CONFIG)
    try:
        version, newer = config["format_version"], config["format_version"] > FORMAT_VERSION
        conditions, state = dict(config["conditions"]), dict(config["state"])
        made_with = config["encoder_sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(target / CONFIG, error) from error
    if newer:
        raise ValueError(f"{target} has format {version}, this morphoclip reads {FORMAT_VERSION}: upgrade morphoclip")
    beside = read_settings(Path(folder) / CONFIG).get("sha256")
    if beside != made_with:
        raise ValueError(
            f"the towers in {folder} were trained with another encoder ({str(made_with)[:12]}, beside them is "
            f"{str(beside)[:12]}): export the run again and keep its folder together"
        )
    tensors = read_tensors(target / WEIGHTS)
    if config.get("sha256") not in (None, tensors_hash(tensors)):  # None: written before it was recorded
        raise ValueError(mixed(target / WEIGHTS))
    return conditions, tensors | state, target


def mixed(weights: Path) -> str:
    """What to say of weights whose sha256 is not the one in the config beside them."""
    return (
        f"{weights} is not what {weights.parent / CONFIG} was written with: the folder mixes two exports or is damaged. "
        "Copy or export it again"
    )


def write_files(folder: Path, files: Mapping[str, bytes], source: object) -> None:
    """Write what a Hugging Face tower needs, name -> bytes, below a folder.

    Raises:
        ValueError: a name leads out of the folder; `source` is who named it.
    """
    for name, content in files.items():
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or path == folder.resolve():
            raise ValueError(f"{source} asks to write {name!r}, outside the folder of its towers: do not use that file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
