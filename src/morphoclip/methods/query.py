"""A trained cross-modal model as a translator: texts and structures into its joint space."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import Tensor

from morphoclip.export.towers import CONFIG, TOWERS, load_towers, write_files
from morphoclip.export.weights import read_checkpoint, read_settings
from morphoclip.methods.clip import CLIP
from morphoclip.methods.conditions import Conditions
from morphoclip.methods.towers import PREFIX, rebuild
from morphoclip.models.molecule import read_smiles

Kind = Literal["text", "smiles"]


@dataclass(frozen=True)
class JointSpace:
    """Where images, texts and structures of a trained model meet; `conditions` reads the last two."""

    conditions: Conditions


def load_clip(source: str | Path, *, allow: Collection[str] = ()) -> JointSpace:
    """What reads the texts and structures of a trained cross-modal model, in evaluation mode.

    Args:
        source: an encoder folder with towers (as train.py and `morphoclip export` write for method=clip), a run folder,
            or a checkpoint. A folder needs nothing besides itself.
        allow: `_target_`s of your own towers that may be imported and built; only a run or checkpoint names such.

    Raises:
        FileNotFoundError: nothing there, or an encoder folder without towers.
        ValueError: the model is of a method without words, or its towers cannot be rebuilt or are not allowed.
    """
    given = Path(source)
    checkpoint = given / "checkpoints" / "last.ckpt" if given.is_dir() else given
    if (given / TOWERS).is_dir():
        return JointSpace(rebuild(*load_towers(given), source=given))
    if (given / CONFIG).is_file():
        beside = given.parent / "checkpoints" / "last.ckpt"  # a run of an older version, asked by its encoder
        if given.name != "encoder" or not beside.is_file():
            raise FileNotFoundError(_without_towers(given))
        checkpoint = beside
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {checkpoint}: give a run folder that train.py printed, its checkpoints/last.ckpt, or an "
            "encoder folder that `morphoclip export` made of it"
        )
    saved = read_checkpoint(checkpoint)
    method = saved.get("trained_on", {}).get("method")
    if method != CLIP.__name__:
        raise ValueError(f"{checkpoint} is of {method}, which knows no words: train with method=clip")
    return JointSpace(_from_checkpoint(saved, checkpoint, allow))


def _from_checkpoint(saved: Mapping[str, Any], path: Path, allow: Collection[str]) -> Conditions:
    """The perturbation side of a checkpoint, and nothing else of the method it names."""
    towers = saved.get("towers")
    prefix = towers["prefix"] if towers else PREFIX
    state = {k.removeprefix(prefix): v for k, v in saved["state_dict"].items() if k.startswith(prefix)}
    if towers:
        with TemporaryDirectory() as files:
            write_files(Path(files), towers["files"], path)
            return rebuild(towers["conditions"], state, files, path)
    # Saved before checkpoints described their towers, or with towers that a description cannot name.
    known = saved.get("hyper_parameters", {})
    known = known | (known.get("conditions") or {})
    arguments = {key: known[key] for key in inspect.signature(Conditions).parameters if key in known}
    return rebuild(arguments | {"recompute": None, "cache": None}, state, None, path, allow)


def _without_towers(folder: Path) -> str:
    """Why an encoder folder answers no words, and what to do."""
    method = read_settings(folder / CONFIG).get("trained_on", {}).get("method")
    if method not in (None, CLIP.__name__):
        return f"{folder} is of {method}, which knows no words: train with method=clip"
    return (
        f"{folder} holds the image side alone: it has no {TOWERS}/ to read words or structures with. Export the run again, "
        "`morphoclip export RUN --to FOLDER`, or ask the run itself. Runs with method.image.export=backbone, with towers of "
        "your own code, or trained before folders held towers answer from the run only (of your own code: `load_clip` in Python)"
    )


def embed_query(method: CLIP | JointSpace, text: str | None, smiles: str | None, dose: float | None = None) -> Tensor:
    """The joint embedding (E,) of a text or of a structure, each by the tower that reads it.

    Raises:
        ValueError: not exactly one of the two, or as `embed_words`.
    """
    if (text is None) == (smiles is None):
        raise ValueError("give either a text or a SMILES")
    if smiles is not None:
        return embed_words(method, "smiles", [smiles], dose)[0]
    return embed_words(method, "text", [str(text)], dose)[0]


@torch.inference_mode()
def embed_words(
    method: CLIP | JointSpace, kind: Kind, words: Sequence[str], dose: float | None = None, batch_size: int = 256
) -> Tensor:
    """The joint embeddings (U, E) of texts or structures, by the tower that reads them, `batch_size` at a time.

    Args:
        kind: `smiles` goes to a molecule tower, or a text tower whose training prompts were bare SMILES; `text` to the
            first tower that was trained on anything else.
        dose: µM of all of them, for models trained with `method.dose`.

    Raises:
        ValueError: no tower reads them, a text is empty, RDKit cannot read a SMILES, or a dose for a model without doses.
    """
    sides = method.conditions
    if dose is not None and sides.dose is None:
        raise ValueError("this model reads no doses (it was trained without method.dose): ask without one")
    if not all(word.strip() for word in words):
        raise ValueError(f"an empty {kind} says nothing")
    if kind == "smiles":
        for smiles in words:
            if not _is_smiles(smiles):
                raise ValueError(f"{smiles!r} is no SMILES that RDKit reads")
    fitting = [number for number in range(len(sides.towers)) if kind in _reads(sides, number)]
    if not fitting:
        lacking, instead = {"text": ("words", "SMILES"), "smiles": ("bare SMILES", "text")}[kind]
        raise ValueError(
            f"no tower of this run was trained on {lacking}, but on prompts such as {sides.distinct[0][0]!r}: ask with a "
            f"{instead} of that kind"
        )
    parts = [list(words[start : start + batch_size]) for start in range(0, len(words), batch_size)]
    return torch.cat([sides.embed_texts(part, dose=dose, number=fitting[0]) for part in parts])


def _reads(sides: Conditions, number: int) -> set[Kind]:
    """What a tower was trained on. A gene may look like a SMILES (CBS), so most one-word prompts have to."""
    if type(sides.towers[number]).__name__ in ("MorganEncoder", "GraphEncoder"):
        return {"smiles"}
    prompts = {prompt for prompt, home, _ in sides.distinct if home == number}
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
    """The joint embeddings (U, E) of the distinct prompts the model was trained on, and their words."""
    names = [prompt if not dose else f"{prompt} ({dose} µM)" for prompt, _, dose in method.conditions.distinct]
    return torch.cat([method.conditions(rows) for rows in torch.arange(len(names)).split(batch_size)]), names
