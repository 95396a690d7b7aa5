"""Published weights by name: those of timm, and of Hugging Face models."""

from __future__ import annotations

from pathlib import Path

import timm
from torch import Tensor

from morphoclip.models.weight_files import in_float32, read_weights

FILES = ("model.safetensors", "pytorch_model.bin")


def timm_weights(name: str) -> dict[str, Tensor]:
    """The pretrained weights of a timm model, in float32; fetched once by timm.

    Raises:
        ValueError: timm has no such model, or no weights for it.
        FileNotFoundError: they could not be fetched.
    """
    if not timm.is_model(name):
        raise ValueError(f"timm:{name} is neither a file nor a name of timm.list_models()")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except OSError as error:
        raise FileNotFoundError(f"the weights of timm:{name} could not be fetched: {_first_line(error)}") from error
    except RuntimeError as error:
        raise ValueError(f"timm has no weights for {name}: {_first_line(error)}") from error
    return {key: in_float32(value) for key, value in model.state_dict().items()}


def hugging_face_weights(name: str) -> dict[str, Tensor]:
    """The weights of a Hugging Face model by hub id or local folder, in float32, under the names of its file.

    Raises:
        FileNotFoundError: no such folder, or fetching failed.
        ValueError: weights divided among several files, or as in `read_weights`.
    """
    folder = Path(name)
    if folder.is_dir():
        there = [folder / file for file in FILES if (folder / file).is_file()]
        if not there:
            divided = sorted(path.name for path in folder.glob("*.index.json"))
            what = (
                f"its weights are divided ({divided[0]}): save them in one file" if divided else f"it has no {FILES[0]}"
            )
            raise ValueError(f"hf:{name} cannot be read: {what}")
        return read_weights(there[0])
    from transformers.utils import cached_file

    try:
        found = cached_file(name, FILES[0])
    except (OSError, ValueError) as error:  # a ValueError is an id that no repository can have
        raise FileNotFoundError(
            f"no folder {name}, and fetching it from the hub failed: {_first_line(error)}"
        ) from error
    return read_weights(str(found))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
