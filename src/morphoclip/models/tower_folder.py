"""The folder `towers` of an encoder folder: what turns words and structures into the joint space of its images.

    towers/config.json         how the towers are built, the training prompts, tokenizers learned from them
    towers/model.safetensors   weights of towers, heads and projections, frozen ones too
    towers/<number>/           config.json and tokenizer files of a Hugging Face tower

The folder is complete: no hub, run or cache is asked when it is read, and nothing in it is code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

TOWERS, CONFIG, WEIGHTS = "towers", "config.json", "model.safetensors"
FORMAT_VERSION = 1


def save_towers(
    folder: str | Path, described: Mapping[str, Any], state: Mapping[str, Any], encoder_sha256: str
) -> None:
    """Write `folder`/towers.

    Args:
        folder: an encoder folder in the making.
        described: `conditions` (plain arguments), `prefix` (of the names in `state`), `files` (name -> bytes).
        state: state dict of the whole method; a value is a tensor, or a tokenizer as text.
        encoder_sha256: of the encoder whose space the towers share.
    """
    from safetensors.torch import save_file

    target, prefix = Path(folder) / TOWERS, described["prefix"]
    target.mkdir()
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    # clone: safetensors takes no tensors that share storage (tied weights).
    tensors = {name: v.detach().cpu().clone().contiguous() for name, v in own.items() if isinstance(v, Tensor)}
    save_file(tensors, target / WEIGHTS)
    write_files(target, described["files"])
    config = {
        "format_version": FORMAT_VERSION,
        "encoder_sha256": encoder_sha256,
        "conditions": described["conditions"],
        "state": {name: value for name, value in own.items() if name not in tensors},
    }
    (target / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_towers(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """(arguments of the conditions, their state dict, where the towers' files lie) of an encoder folder.

    Raises:
        FileNotFoundError: the folder holds no towers, or not all of them.
        ValueError: their config is none, of a newer format, or of another encoder than the one beside them.
    """
    from safetensors.torch import load_file

    target = Path(folder) / TOWERS
    for path in (target / CONFIG, target / WEIGHTS):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: export the run again with `morphoclip export`")
    try:
        config = json.loads((target / CONFIG).read_text(encoding="utf-8"))
        version, conditions, state = config["format_version"], config["conditions"], config["state"]
        made_with = config["encoder_sha256"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{target / CONFIG} is not the config of towers: {error!r}") from error
    if version > FORMAT_VERSION:
        raise ValueError(f"{target} has format {version}, this morphoclip reads {FORMAT_VERSION}: upgrade morphoclip")
    beside = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")).get("sha256")
    if beside != made_with:
        raise ValueError(
            f"the towers in {folder} were trained with another encoder ({made_with[:12]}, beside them is "
            f"{str(beside)[:12]}): export the run again and keep its folder together"
        )
    return conditions, load_file(target / WEIGHTS) | state, target


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what a Hugging Face tower needs, name -> bytes, below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
