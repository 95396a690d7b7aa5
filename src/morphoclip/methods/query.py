"""A trained cross-modal run as a translator: texts and structures into its joint space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from morphoclip.methods.clip import CLIP
from morphoclip.methods.conditions import Conditions
from morphoclip.models.molecule import read_smiles

Kind = Literal["text", "smiles"]


def load_clip(run: str | Path) -> CLIP:
    """The trained method of a run folder (or its `encoder`) or a checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: no checkpoint there; exported encoders hold the image side alone.
        ValueError: the checkpoint is of a method without words.
    """
    given = Path(run)
    folder = given.parent if given.name == "encoder" else given  # train.py writes RUN/encoder
    path = folder / "checkpoints" / "last.ckpt" if given.is_dir() else given
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}: an exported encoder holds the image side alone, the towers of words lie in the "
            "checkpoint. Give the run folder that train.py printed, or its checkpoints/last.ckpt"
        )
    method = torch.load(path, map_location="cpu", weights_only=True).get("trained_on", {}).get("method")
    if method != CLIP.__name__:
        raise ValueError(f"{path} is of {method}, which knows no words: train with method=clip")
    return CLIP.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


def embed_query(method: CLIP, text: str | None, smiles: str | None, dose: float | None = None) -> Tensor:
    """The joint embedding (E,) of a text or of a structure, each by the tower that reads it.

    Raises:
        ValueError: not exactly one of the two, or as `embed_words`.
    """
    if (text is None) == (smiles is None):
        raise ValueError("give either a text or a SMILES")
    return embed_words(method, *(("text", [text]) if smiles is None else ("smiles", [smiles])), dose)[0]


@torch.inference_mode()
def embed_words(
    method: CLIP, kind: Kind, words: Sequence[str], dose: float | None = None, batch_size: int = 256
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
    known = {"smiles": 2 * structures > len(single), "text": structures < len(prompts)}
    return {kind for kind, reads in known.items() if reads}


def _is_smiles(text: str) -> bool:
    try:
        read_smiles(text)
    except ValueError:
        return False
    return True


@torch.inference_mode()
def embed_prompts(method: CLIP) -> tuple[Tensor, list[str]]:
    """The joint embeddings (U, E) of the distinct prompts the run was trained on, and their words."""
    names = [prompt if not dose else f"{prompt} ({dose} µM)" for prompt, _, dose in method.conditions.distinct]
    return method.conditions(torch.arange(len(names))), names
