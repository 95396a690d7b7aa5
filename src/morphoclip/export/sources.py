"""Where weights to start from come from: our encoder folders, runs and checkpoints, timm, Hugging Face, or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from morphoclip.checkpoints import LAST, last_checkpoint, read_checkpoint
from morphoclip.export.crop_pool import POOL, PREFIXES
from morphoclip.export.layout import CONFIG, WEIGHTS
from morphoclip.export.load import load_encoder, local_source
from morphoclip.export.weights import read_settings, read_tensors
from morphoclip.models.lora import merged
from morphoclip.models.weight_files import read_weights
from morphoclip.models.weight_names import below, plain

ENCODER, PROJECTION, POOL_OF_CROPS = PARTS = ("encoder", "projection", "pool")
OF_IMAGE_SIDE = "image.projection."  # of CLIP with image.export=backbone, in a checkpoint
TIMM, HUGGING_FACE = "timm:", "hf:"
NETWORKS = ("teacher", "student")


@dataclass(frozen=True)
class Source:
    """Weights of the parts of an encoder.

    Attributes:
        parts: `encoder` (of cached features with everything but the pool), `projection`, `pool` -> names -> tensors. A part
            that the source lacks is absent.
        described: what it is, for people.
        channels: names of the input channels; None if they are not known.
        facts: for provenance.
    """

    parts: Mapping[str, Mapping[str, Tensor]]
    described: str
    channels: Sequence[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def read_source(
    given: str, network: str = "teacher", channels: Sequence[str] | None = None, trust_remote_code: bool = False
) -> Source:
    """Read weights to start from.

    Args:
        given: an encoder folder, a run, a checkpoint, a file of weights, the id of a Hugging Face repository with an encoder
            folder; `timm:` and a name or file; `hf:` and the id or folder of a Hugging Face model.
        network: `teacher` or `student`, of checkpoints of methods with both.
        channels: names of the channels, where the source has no names.
        trust_remote_code: for an encoder folder around code of another package, see `load_encoder`.

    Raises:
        FileNotFoundError: nothing at `given`.
        ValueError: it cannot be read, or is no source of weights.
    """
    if network not in NETWORKS:
        raise ValueError(f"init.network={network!r}: give teacher or student")
    if given.startswith(TIMM):
        return _of_timm(given, given.removeprefix(TIMM), channels)
    if given.startswith(HUGGING_FACE):
        return _of_hugging_face(given, given.removeprefix(HUGGING_FACE), channels)
    path = local_source(given)
    if path.is_file():
        return _of_file(path, network, channels)
    if (path / "checkpoints").is_dir() and not (path / CONFIG).is_file():
        checkpoint = last_checkpoint(path)
        if checkpoint is None:
            raise ValueError(f"{path} has no whole checkpoint (checkpoints/{LAST}): the run ended before its first")
        return _of_file(checkpoint, network, channels)
    if not (path / CONFIG).is_file():
        raise ValueError(f"{path} holds neither {CONFIG} (an encoder folder) nor checkpoints/{LAST} (a run)")
    settings = read_settings(path / CONFIG)
    if "format_version" in settings:
        return _of_encoder_folder(path, trust_remote_code)
    if "architecture" in settings:  # timm's layout of a folder
        return Source({ENCODER: read_weights(path / WEIGHTS)}, f"timm weights in {path}", channels)
    return _of_hugging_face(given, str(path), channels)


def _of_encoder_folder(path: Path, trust_remote_code: bool) -> Source:
    encoder = load_encoder(path, trust_remote_code=trust_remote_code)
    parts = _parts(encoder.state_dict())
    if (path / POOL).is_file():
        parts[POOL_OF_CROPS] = read_tensors(path / POOL)
    sha256 = read_settings(path / CONFIG).get("sha256")
    trained_on = encoder.trained_on
    return Source(
        parts, f"{path} ({_method(trained_on)})", encoder.channels, {"sha256": sha256, "trained_on": trained_on}
    )


def _of_file(path: Path, network: str, channels: Sequence[str] | None) -> Source:
    if path.suffix != ".safetensors":
        try:
            saved = read_checkpoint(path)
        except ValueError:
            saved = {}
        if "encoder_config" in saved:
            return _of_own_checkpoint(path, saved, network)
    return Source({ENCODER: read_weights(path)}, f"weights in {path}", channels)


def _of_own_checkpoint(path: Path, saved: Mapping[str, Any], network: str) -> Source:
    state, prefix = saved["state_dict"], saved["encoder_prefix"]
    kind = "" if prefix == "encoder." else f"{network} of "
    weights = below(state, "encoder." if network == "student" else prefix)
    if lora := saved["encoder_config"].get("lora"):
        weights = merged(weights, lora["rank"], lora["alpha"])
    parts = _parts({plain(name): value for name, value in weights.items()})
    for start in PREFIXES:
        if pool := below(state, start):
            parts[POOL_OF_CROPS] = pool
    if projection := below(state, OF_IMAGE_SIDE):
        parts[PROJECTION] = projection
    trained_on = saved.get("trained_on", {})
    described = f"{kind}{path} ({_method(trained_on)}, step {saved.get('global_step')})"
    return Source(parts, described, saved["encoder_config"].get("channels"), {"trained_on": dict(trained_on)})


def _parts(state: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
    """The parts of an encoder's state dict; statistics of features are not among them, which are those of the data."""
    if any(name.startswith("body.") for name in state):  # a FeatureEncoder
        encoder = {name: value for name, value in state.items() if name.startswith(("body.", "norm."))}
        found = {ENCODER: encoder, POOL_OF_CROPS: below(state, "pool.")}
    else:
        found = {ENCODER: below(state, "backbone."), PROJECTION: below(state, "projection.")}
    return {part: weights for part, weights in found.items() if weights}


def _method(trained_on: Mapping[str, Any]) -> str:
    return str(trained_on.get("method") or "not trained")


def _of_timm(given: str, name: str, channels: Sequence[str] | None) -> Source:
    if Path(name).is_file():
        return Source({ENCODER: read_weights(name)}, f"timm weights in {name}", channels)
    from morphoclip.models.pretrained import timm_weights

    return Source({ENCODER: timm_weights(name)}, given, channels)


def _of_hugging_face(given: str, name: str, channels: Sequence[str] | None) -> Source:
    from morphoclip.models.pretrained import hugging_face_weights

    return Source({ENCODER: hugging_face_weights(name)}, f"Hugging Face model {given}", channels)
