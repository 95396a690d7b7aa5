"""A method that starts from given weights: image side, student and teacher alike, and towers of texts and molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from morphoclip.checkpoints import last_checkpoint, read_checkpoint, tensors_hash
from morphoclip.export.initialise import Record, initialise, modules_of
from morphoclip.export.load import local_source
from morphoclip.export.sources import POOL_OF_CROPS, PROJECTION, read_source
from morphoclip.export.towers import TOWERS, load_towers
from morphoclip.export.weights import damaged
from morphoclip.methods.base import Method
from morphoclip.methods.clip import CLIP
from morphoclip.methods.image_sides import CropBags
from morphoclip.methods.towers import PREFIX
from morphoclip.models.weight_loading import load_weights
from morphoclip.models.weight_names import below

TEXT, MOLECULE = "text", "molecule"
TOWERS_OF = {TEXT: ("SmallTextEncoder", "HuggingFaceTextEncoder"), MOLECULE: ("MorganEncoder", "GraphEncoder")}


def start_from(
    method: Method,
    source: str | None,
    parts: Sequence[str] = ("encoder",),
    *,
    network: str = "teacher",
    channels: Sequence[str] | None = None,
    text: str | None = None,
    molecule: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Load weights into a method that has not begun to train; its teacher, if it has one, starts from them too.

    Args:
        source, network, channels, trust_remote_code: see `export.sources.read_source`; None for random weights.
        parts: of `encoder`, `projection` (into the joint space), `pool` (over crops).
        text, molecule: encoder folder, run or checkpoint of image-text training whose tower of that kind is taken.

    Returns:
        Lines for the log, and facts for provenance; both empty if nothing was asked for.

    Raises:
        ValueError: less would be loaded than was asked for; see `export.initialise`.
        FileNotFoundError: nothing there.
    """
    lines: list[str] = []
    facts: dict[str, Any] = {}
    if source is not None:
        read = read_source(source, network, channels, trust_remote_code)
        own: list[Any] = method.encoders()
        record = Record()
        for encoder in own:
            record = initialise(modules_of(encoder) | _of_image_side(method, encoder), encoder, read, parts)
        teacher = " (student and teacher)" if len(own) > 1 else ""
        lines += record.lines(f"{read.described}{teacher}")
        hashes = {part: tensors_hash(read.parts[part]) for part in parts}
        facts |= {"from": source, "parts": list(parts), "weights_sha256": hashes, **read.facts}
    for kind, given in ((TEXT, text), (MOLECULE, molecule)):
        if given is not None:
            lines += _load_tower(method, kind, given, PROJECTION in parts)
            facts[kind] = given
    return lines, {**facts, "log": lines} if facts else {}


def _of_image_side(method: Method, encoder: Any) -> dict[str, nn.Module]:
    """The parts outside of the encoder: the pool over crops, and the projection if it is not the encoder's."""
    if not isinstance(method, CLIP) or not isinstance(method.image, CropBags):
        return {}
    outside = {} if method.image.is_joint else {PROJECTION: method.image.projection}
    return {POOL_OF_CROPS: method.image.pool, **outside}


def _load_tower(method: Method, kind: str, given: str, with_projection: bool) -> list[str]:
    """Load the tower of a kind, and on request its projection into the joint space; lines for the log."""
    if not isinstance(method, CLIP):
        raise ValueError(f"init.{kind}={given}: {type(method).__name__} has no {kind} tower")
    conditions = method.conditions
    described, state = _read_towers(given)
    own = _numbers(method.hparams["text"], kind)
    there = _numbers(described["text"], kind)
    if not own or not there:
        whose = "this method" if not own else given
        raise ValueError(f"init.{kind}={given}: {whose} has no {kind} tower ({', '.join(TOWERS_OF[kind])})")
    number, name = own[0]
    other, other_name = there[0]
    if name != other_name:
        raise ValueError(f"init.{kind}={given} holds a {other_name}, this method has a {name}: choose the same tower")
    tower, weights = conditions.towers[number], below(state, f"towers.{other}.")
    what = f"{kind} tower {name} from {given}"
    extra = {key: value for key, value in weights.items() if isinstance(value, str)}  # its tokenizer
    if extra:
        _load_strictly(tower, weights, what)
        count = len(weights) - len(extra)
    else:
        count = load_weights(tower, weights, what).tensors
    loaded = [f"{kind} tower ({name}, {count} tensors)"]
    conditions.tokenize()
    if with_projection:
        for part in (conditions.heads[number], conditions.projections[number]):
            kind_of = "heads" if part is conditions.heads[number] else "projections"
            if part.state_dict():
                load_weights(part, below(state, f"{kind_of}.{other}."), f"{kind_of} of the {what}")
        loaded.append("its projection")
    else:
        conditions.spread(keep_statistics=True)
    return [f"init        loaded {' and '.join(loaded)} from {given}"]


def _load_strictly(tower: nn.Module, weights: Mapping[str, Any], what: str) -> None:
    try:
        tower.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(
            f"{what} has another size: choose the same settings ({' '.join(str(error).split())[:300]})"
        ) from error


def _numbers(text: Mapping[str, Any], kind: str) -> list[tuple[int, str]]:
    """Numbers and class names of the towers of a kind."""
    specs = text.get("towers") or [{"tower": text}]
    names = [str(spec["tower"]["_target_"]).rpartition(".")[2] for spec in specs]
    return [(number, name) for number, name in enumerate(names) if name in TOWERS_OF[kind]]


def _read_towers(given: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """(arguments of the conditions, their state dict) of an encoder folder with towers, a run or a checkpoint."""
    path = local_source(given)
    if (path / TOWERS).is_dir():
        conditions, state, _ = load_towers(path)
        return conditions, state
    checkpoint = last_checkpoint(path) if path.is_dir() else path
    if checkpoint is None:
        raise ValueError(f"{given} has neither towers/ nor a checkpoint: export the run again")
    saved = read_checkpoint(Path(checkpoint))
    described = saved.get("towers")
    if not described:
        raise ValueError(f"{checkpoint} has no towers of texts or molecules: it was not trained by method=clip")
    try:
        return described["conditions"], below(saved["state_dict"], described.get("prefix", PREFIX))
    except (KeyError, TypeError) as error:
        raise damaged(checkpoint, error) from error
