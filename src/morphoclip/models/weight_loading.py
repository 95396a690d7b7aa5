"""Weights of any origin ▶ a network: matched by name, fitted to its channels and crop size, all of them or an error."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from morphoclip.models.hugging_face_layout import timm_layout
from morphoclip.models.weight_files import in_float32
from morphoclip.models.weight_names import OPTIONAL, below, plain, prefix_of
from morphoclip.models.weight_shapes import match_channels, resample_positions

CONVERT = "checkpoint_filter_fn"  # timm's conversion of other layouts, in the module of a model
POSITIONS, CHANNELS = "pos_embed", "channel_embedding"  # last parts of the names of such tables


@dataclass
class Loaded:
    """What became of given weights.

    Attributes:
        tensors, numbers: how many of the network's tensors were loaded, and how many numbers they hold.
        prefix: of their names in the file.
        changed: what was changed to fit the network.
        unused: names of the file's weights that the network does not have.
    """

    tensors: int
    numbers: int
    prefix: str
    changed: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


@torch.no_grad()
def load_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    what: str,
    *,
    given_channels: Sequence[str] | None = None,
    channels: Sequence[str] = (),
    name: str = "",
) -> Loaded:
    """Copy weights into a network.

    Prefixes of DDP, compilation, teachers and of the models around a backbone are taken off. Weights come in the network's
    precision from float32. Low-rank updates of the network stay as they are, and its own weights are loaded below them.

    Args:
        weights: name -> tensor, e.g. of `weight_files.read_weights`.
        what: the weights and the network, for error messages: "encoder vit_small from outputs/x/last.ckpt".
        given_channels: names of the channels of the weights; None if they have none, see `match_channels`.
        channels: names of the network's channels; none for a network whose weights do not depend on them.
        name: of the network. Where names do not match, the layout of transformers is tried and, if timm has a model of this
            name, timm's own conversions.

    Raises:
        ValueError: nothing fits, some of the network's weights are missing, or their shapes differ; nothing is loaded.
    """
    own = {plain(name): value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    own = {name: value for name, value in own.items() if ".lora_" not in name}
    given = {plain(name): in_float32(value) for name, value in weights.items()}
    prefix = prefix_of(own, given)
    found = below(given, prefix)
    if 2 * len(_missing(own, found)) > len(own):  # a few names that are alike by chance
        prefix, found = "", dict(given)
    for convert in (timm_layout, partial(_by_timm, name=name, network=network)):
        if _missing(own, found):
            found = min(found, convert(found), key=lambda names: len(_missing(own, names)))
    changed = _with_last_norm(own, found)
    missing, needed = _missing(own, found), len(_missing(own, {}))
    if len(missing) == needed:
        raise ValueError(
            f"{what}: none of its {needed} weights ({next(iter(own))}, …) is there; there is {_some(given)}"
        )
    if missing:
        raise ValueError(
            f"{what}: {len(missing)} of {needed} weights are not there ({_some(missing)}): choose the same network"
        )
    fitted, notes = _fitted(network, own, found, given_channels, channels)
    changed += notes
    wrong = [name for name, value in fitted.items() if value.shape != own[name].shape]
    if wrong:
        sizes = f"{wrong[0]} is {tuple(fitted[wrong[0]].shape)} instead of {tuple(own[wrong[0]].shape)}"
        raise ValueError(
            f"{what}: {len(wrong)} of {len(own)} weights have another shape ({sizes}): choose the same network"
        )
    for name, value in fitted.items():
        own[name].copy_(value)
    unused = sorted(f"{prefix}{name}" for name in found.keys() - own.keys())
    return Loaded(len(fitted), sum(value.numel() for value in fitted.values()), prefix, changed, unused)


def _missing(own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if name not in found and not name.endswith(OPTIONAL)]


def _some(names: Any, count: int = 3) -> str:
    shown = list(names)
    return ", ".join(shown[:count]) + (", …" if len(shown) > count else "")


def _by_timm(weights: Mapping[str, Tensor], name: str, network: nn.Module) -> dict[str, Tensor]:
    """Weights in the layout of timm's model of that name, by timm's own conversion; unchanged where it has none."""
    convert = vars(sys.modules[timm.model_entrypoint(name).__module__]).get(CONVERT) if timm.is_model(name) else None
    if convert is None:
        return dict(weights)
    try:
        return dict(convert(dict(weights), network))
    except (KeyError, RuntimeError, ValueError, AttributeError):  # of a layout that timm does not know either
        return dict(weights)


def _with_last_norm(own: Mapping[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Rename the last norm where the network pools before it (`fc_norm`) and the given one after it (`norm`), or reverse."""
    for wanted, there in (("fc_norm", "norm"), ("norm", "fc_norm")):
        names = [f"{wanted}.weight", f"{wanted}.bias"]
        if all(name in own and name not in found for name in names) and f"{there}.weight" in found:
            for name in names:
                found[name] = found.pop(name.replace(wanted, there))
            return [
                f"{there} taken as {wanted}, since this network pools {'before' if wanted == 'fc_norm' else 'after'} it"
            ]
    return []


def _fitted(
    network: nn.Module,
    own: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    given_channels: Sequence[str] | None,
    channels: Sequence[str],
) -> tuple[dict[str, Tensor], list[str]]:
    """The given weights of the network's names, fitted to its channels and grid, and what was changed."""
    fitted = {name: found[name] for name in own if name in found}
    notes: dict[str, None] = {}
    by_table = any(name.rpartition(".")[2] == CHANNELS for name in own)  # then kernels are shared by all channels
    stem = None if by_table else next((name for name, value in own.items() if value.ndim == 4), None)
    for name, value in fitted.items():
        axis = 1 if name == stem and own[name].shape[1] == len(channels) else None
        axis = 0 if name.rpartition(".")[2] == CHANNELS else axis
        note = None
        if axis is not None and channels:
            fitted[name], note = match_channels(value, axis, given_channels, channels)
        elif name.rpartition(".")[2] == POSITIONS and value.shape != own[name].shape and value.ndim == 3:
            holder: Any = network.get_submodule(name.rpartition(".")[0])
            fitted[name], note = resample_positions(value, own[name], tuple(holder.patch_embed.grid_size))
        if note is not None:
            notes[note] = None
    return fitted, list(notes)
