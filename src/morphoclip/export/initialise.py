"""Weights to start from ▶ an encoder, with lines on what was loaded, what was changed and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from morphoclip.export.sources import ENCODER, PARTS, POOL_OF_CROPS, PROJECTION, Source
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.models.per_channel import PerChannel
from morphoclip.models.weight_loading import Loaded, load_weights


@dataclass
class Record:
    """What was loaded, for people and for provenance."""

    loaded: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, part: str, found: Loaded) -> None:
        """Note a part that was loaded."""
        below = f", found below {found.prefix.rstrip('.')}" if found.prefix else ""
        self.loaded.append(f"{part} ({found.tensors} tensors, {found.numbers / 1e6:.3g} M numbers{below})")
        self.changed += found.changed
        if found.unused:
            self.left.append(f"{len(found.unused)} tensors that this {part} does not have ({found.unused[0]}, …)")

    def lines(self, described: str) -> list[str]:
        """Three lines: what was loaded and from where, what was changed, what was left out."""
        return [
            f"init        loaded {' and '.join(self.loaded)} from {described}",
            f"init        changed: {'; '.join(self.changed) or 'nothing'}",
            f"init        not loaded: {'; '.join(self.left) or 'nothing'}",
        ]


def initialise(
    modules: Mapping[str, nn.Module | None], encoder: Encoder | FeatureEncoder, source: Source, parts: Sequence[str]
) -> Record:
    """Load `parts` of a source into modules of a method.

    Args:
        modules: part -> the module of the method; None or absent if it has none.
        encoder: the encoder the modules are of.
        parts: of `encoder`, `projection`, `pool`.

    Raises:
        ValueError: an unknown part, one that the source or the method lacks, or as in `load_weights`.
    """
    record = Record()
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f"init.parts={list(parts)}: give some of {', '.join(PARTS)}")
    for part in parts:
        target, weights = modules.get(part), source.parts.get(part)
        if target is None or not target.state_dict():
            raise ValueError(f"init.parts names {part}, which this method with {encoder.config['name']} does not have")
        if weights is None:
            raise ValueError(
                f"init.parts names {part}, which {source.described} does not hold: it has {', '.join(source.parts)}"
            )
        what = f"{part} of {encoder.config['name']} from {source.described}"
        if part == ENCODER:
            record.add(part, load_backbone(encoder, target, weights, what, source.channels))
        else:
            record.add(part, load_weights(target, weights, what))
    others = [part for part in source.parts if part not in parts]
    record.left += [f"{part} (init.parts does not name it)" for part in others]
    return record


def load_backbone(
    encoder: Encoder | FeatureEncoder,
    network: nn.Module,
    weights: Mapping,
    what: str,
    given_channels: Sequence[str] | None,
) -> Loaded:
    """Load weights into the backbone of an encoder, or the network of a feature encoder, with its channels."""
    if isinstance(network, PerChannel):
        return load_weights(network.model, weights, what, name=network.rebuild["backbone"])
    name, channels = encoder.config["name"], encoder.channels
    return load_weights(network, weights, what, given_channels=given_channels, channels=channels, name=name)


def modules_of(encoder: Encoder | FeatureEncoder) -> dict[str, nn.Module]:
    """The parts of an encoder."""
    if isinstance(encoder, FeatureEncoder):
        return {ENCODER: nn.ModuleDict({"body": encoder.body, "norm": encoder.norm}), POOL_OF_CROPS: encoder.pool}
    return {ENCODER: encoder.backbone, PROJECTION: encoder.projection}
