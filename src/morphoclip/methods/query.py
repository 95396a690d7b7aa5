"""A trained cross-modal run as a translator: texts and structures into its joint space."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from morphoclip.methods.clip import CLIP


def load_clip(run: str | Path) -> CLIP:
    """The trained method of a run folder or a checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: the checkpoint is of a method without words.
    """
    path = Path(run)
    path = path / "checkpoints" / "last.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint at {path}: queries need a run folder or its checkpoint, not an encoder folder"
        )
    method = torch.load(path, map_location="cpu", weights_only=True).get("trained_on", {}).get("method")
    if method != CLIP.__name__:
        raise ValueError(f"{path} is of {method}, which knows no words: train with method=clip")
    return CLIP.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


@torch.inference_mode()
def embed_query(method: CLIP, text: str | None, smiles: str | None, dose: float | None = None) -> Tensor:
    """The joint embedding (E,) of a text or of a structure, each by the tower that reads it.

    Raises:
        ValueError: not exactly one of the two, or no tower that reads it.
    """
    if (text is None) == (smiles is None):
        raise ValueError("give either a text or a SMILES")
    sides = method.conditions
    reads_molecules = [type(tower).__name__ in ("MorganEncoder", "GraphEncoder") for tower in sides.towers]
    fitting = [number for number, molecules in enumerate(reads_molecules) if molecules == (smiles is not None)]
    if smiles is not None and not fitting and len(sides.towers) == 1:
        fitting = [0]  # a text tower that was trained on prompts of SMILES reads them too
    if not fitting:
        raise ValueError(
            "this run has no tower of words: ask with a SMILES"
            if text is not None
            else "no tower of this run reads SMILES"
        )
    return sides.embed_texts([text if smiles is None else smiles], dose=dose, number=fitting[0])[0]


@torch.inference_mode()
def embed_prompts(method: CLIP) -> tuple[Tensor, list[str]]:
    """The joint embeddings (U, E) of the distinct prompts the run was trained on, and their words."""
    names = [prompt if not dose else f"{prompt} ({dose} µM)" for prompt, _, dose in method.conditions.distinct]
    return method.conditions(torch.arange(len(names))), names
