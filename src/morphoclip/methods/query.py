"""Queries to a trained cross-modal model: texts and structures embedded in its joint space."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from morphoclip.checkpoints import read_checkpoint
from morphoclip.export.towers import CONFIG, TOWERS, load_towers, write_files
from morphoclip.export.weights import read_settings
from morphoclip.methods.clip import CLIP
from morphoclip.methods.conditions import Conditions
from morphoclip.methods.towers import PREFIX, rebuild
from morphoclip.models.molecule import read_smiles

Kind = Literal["text", "smiles"]


@dataclass(frozen=True)
class JointSpace:
    """The joint space of a trained model; `conditions` embeds texts and structures in it."""

    conditions: Conditions


def load_clip(source: str | Path, *, allow: Collection[str] = ()) -> JointSpace:
    """The text and molecule side of a trained cross-modal model, in evaluation mode.

    Args:
        source: an encoder folder with towers (written by train.py and `morphoclip export` for method=clip), a run folder,
            or a checkpoint. A folder is complete in itself.
        allow: `_target_`s of your own towers that may be imported and built; only runs and checkpoints can name them.

    Raises:
        FileNotFoundError: nothing at `source`, or an encoder folder without towers.
        ValueError: the method has no text side, or the towers cannot be rebuilt or are not allowed.
    """
    given = Path(source)
    checkpoint = given / "checkpoints" / "last.ckpt" if given.is_dir() else given
    if (given / TOWERS).is_dir():
        return JointSpace(rebuild(*load_towers(given), source=given))
    if (given / CONFIG).is_file():
        checkpoint_of_run = (
            given.parent / "checkpoints" / "last.ckpt"
        )  # the run of an encoder folder from an older version
        if given.name != "encoder" or not checkpoint_of_run.is_file():
            raise FileNotFoundError(_without_towers(given))
        checkpoint = checkpoint_of_run
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {checkpoint}: give a run folder that train.py printed, its checkpoints/last.ckpt, or an "
            "encoder folder that `morphoclip export` made of it"
        )
    saved = read_checkpoint(checkpoint)
    method = saved.get("trained_on", {}).get("method")
    if method != CLIP.__name__:
        raise ValueError(f"{checkpoint} was trained with {method}, which has no text side: train with method=clip")
    return JointSpace(_from_checkpoint(saved, checkpoint, allow))


def _from_checkpoint(saved: Mapping[str, Any], path: Path, allow: Collection[str]) -> Conditions:
    """Build only the perturbation side of a checkpoint."""
    towers = saved.get("towers")
    prefix = towers["prefix"] if towers else PREFIX
    state = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
    if towers:
        with TemporaryDirectory() as files:
            write_files(Path(files), towers["files"], path)
            return rebuild(towers["conditions"], state, files, path)
    # Saved before checkpoints described their towers, or with the user's own towers, which are not described.
    known = saved.get("hyper_parameters", {})
    known = known | (known.get("conditions") or {})
    arguments = {key: known[key] for key in inspect.signature(Conditions).parameters if key in known}
    return rebuild(arguments | {"recompute": None, "cache": None}, state, None, path, allow)


def _without_towers(folder: Path) -> str:
    """The error message for an encoder folder without towers."""
    method = read_settings(folder / CONFIG).get("trained_on", {}).get("method")
    if method not in (None, CLIP.__name__):
        return f"{folder} was trained with {method}, which has no text side: train with method=clip"
    return (
        f"{folder} has no {TOWERS}/ to embed texts or structures with. Export the run again, `morphoclip export RUN --to "
        "FOLDER`, or give the run folder. Runs with method.image.export=backbone, with your own towers, or trained before "
        "folders held towers need the run folder (for your own towers: `load_clip` in Python)"
    )


def embed_query(method: CLIP | JointSpace, text: str | None, smiles: str | None, dose: float | None = None) -> Tensor:
    """The joint embedding (E,) of a text or of a structure, by the tower trained on its kind.

    Raises:
        ValueError: not exactly one of the two is given, or as in `embed_texts`.
    """
    if (text is None) == (smiles is None):
        raise ValueError("give either a text or a SMILES")
    if smiles is not None:
        return embed_texts(method, "smiles", [smiles], dose)[0]
    return embed_texts(method, "text", [str(text)], dose)[0]


@torch.inference_mode()
def embed_texts(
    method: CLIP | JointSpace, kind: Kind, texts: Sequence[str], dose: float | None = None, batch_size: int = 256
) -> Tensor:
    """The joint embeddings (U, E) of texts or structures, by the tower trained on their kind, `batch_size` at a time.

    Args:
        kind: `smiles` selects a molecule tower, or a text tower trained on plain SMILES; `text` the first tower trained
            on anything else.
        dose: dose of all in µM, for models trained with `method.dose`.

    Raises:
        ValueError: no tower for this kind, an empty text, a SMILES that RDKit cannot read, or a dose for a model without.
    """
    sides = method.conditions
    if dose is not None and sides.dose is None:
        raise ValueError("this model was trained without doses (method.dose): leave out the dose")
    if not all(text.strip() for text in texts):
        raise ValueError(f"the {kind} to embed is empty: give one")
    if kind == "smiles":
        for smiles in texts:
            if not _is_smiles(smiles):
                raise ValueError(f"RDKit cannot read the SMILES {smiles!r}: correct it")
    fitting = [number for number in range(len(sides.towers)) if kind in _reads(sides, number)]
    if not fitting:
        lacking, instead = {"text": ("texts", "SMILES"), "smiles": ("bare SMILES", "text")}[kind]
        raise ValueError(
            f"no tower of this model was trained on {lacking}; its prompts are like {sides.distinct[0][0]!r}: give a "
            f"{instead} of that kind"
        )
    parts = [list(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
    return torch.cat([sides.embed_texts(part, dose=dose, number=fitting[0]) for part in parts])


def _reads(sides: Conditions, number: int) -> set[Kind]:
    """The kinds a tower was trained on. Some genes are valid SMILES (CBS), so most one-word prompts must be valid."""
    if type(sides.towers[number]).__name__ in ("MorganEncoder", "GraphEncoder"):
        return {"smiles"}
    prompts = {prompt for prompt, tower, _ in sides.distinct if tower == number}
    single = [prompt for prompt in prompts if len(prompt.split()) == 1]
    structures = sum(map(_is_smiles, single))
    known: dict[Kind, bool] = {"smiles": 2 * structures > len(single), "text": structures < len(prompts)}
    return {kind for kind, reads in known.items() if reads}


def _is_smiles(text: str) -> bool:
    try:
        read_smiles(text)
    except ValueError:
        return False
    return True


@torch.inference_mode()
def embed_prompts(method: CLIP | JointSpace, batch_size: int = 256) -> tuple[Tensor, list[str]]:
    """The joint embeddings (U, E) of the distinct training prompts, and the prompts themselves."""
    names = [prompt if not dose else f"{prompt} ({dose} µM)" for prompt, _, dose in method.conditions.distinct]
    return torch.cat([method.conditions(rows) for rows in torch.arange(len(names)).split(batch_size)]), names
