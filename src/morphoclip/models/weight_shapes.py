"""Weights of a network on other channels or another crop size: kernels by channel, tables by channel, positions by grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor


def match_channels(
    weight: Tensor, axis: int, given: Sequence[str] | None, own: Sequence[str]
) -> tuple[Tensor, str | None]:
    """A weight of the channels `given`, along `axis`, for the channels `own`, matched by name.

    Channels are permuted; one that `given` lacks starts as the mean over the given ones, one that `own` lacks is dropped.
    Without names (`given` is None) the number decides: equal numbers are taken in order, and those of grey and RGB
    networks are repeated and scaled, so that an image of equal channels gives the same response (as timm does).

    Returns:
        The weight, and what was changed (None for nothing).

    Raises:
        ValueError: no channel in common, or another number of channels without names.
    """
    count = weight.shape[axis]
    if given is None:
        if count == len(own):
            return weight, None
        if count not in (1, 3):
            raise ValueError(
                f"the weights have {count} input channels without names, this encoder has {len(own)} ({', '.join(own)}): "
                "name those of the weights by init.channels=[…]"
            )
        repeated = torch.arange(len(own)) % count
        return weight.index_select(axis, repeated) * (count / len(own)), (
            f"{'grey' if count == 1 else 'RGB'} kernels repeated over {len(own)} channels and scaled by {count}/{len(own)}"
        )
    if len(given) != count:
        raise ValueError(f"{len(given)} channels are named ({', '.join(given)}), but the weights have {count}")
    shared = [name for name in own if name in given]
    if not shared:
        raise ValueError(
            f"the weights are of the channels {', '.join(given)}, this encoder has {', '.join(own)}: none in common"
        )
    mean = weight.mean(dim=axis)
    columns = [weight.select(axis, list(given).index(name)) if name in given else mean for name in own]
    return torch.stack(columns, dim=axis), channel_note(given, own)


def channel_note(given: Sequence[str], own: Sequence[str]) -> str | None:
    """What `match_channels` changed; None for nothing."""
    if list(given) == list(own):
        return None
    added, dropped = [name for name in own if name not in given], [name for name in given if name not in own]
    notes = []
    if [name for name in own if name in given] != [name for name in given if name in own]:
        notes.append(f"channels permuted from {', '.join(given)}")
    if added:
        notes.append(f"{', '.join(added)} starts as the mean of the {len(given)} given channels")
    if dropped:
        notes.append(f"{', '.join(dropped)} dropped")
    return "; ".join(notes)


def resample_positions(table: Tensor, own: Tensor, grid: tuple[int, int]) -> tuple[Tensor, str]:
    """Position embeddings (1, P + h·w, D) of a square grid interpolated to that of `own` (1, P' + H·W, D), with a note.

    The P' positions of class and register tokens are taken from the given ones; where these have none, they are `own`'s.

    Raises:
        ValueError: the given positions are not those of a square grid.
    """
    prefix = own.shape[1] - grid[0] * grid[1]
    for before in dict.fromkeys((prefix, 0, 1, 5)):
        side = math.isqrt(max(table.shape[1] - before, 0))
        if side and side**2 == table.shape[1] - before:
            break
    else:
        raise ValueError(f"the {table.shape[1]} position embeddings are not those of a square grid")
    patches = resample_abs_pos_embed(table[:, before:], list(grid), [side, side], num_prefix_tokens=0)
    first = table[:, :prefix] if before >= prefix else own[:, :prefix].detach().to(table.dtype)
    return torch.cat([first, patches], dim=1), f"positions {side}x{side} interpolated to {grid[0]}x{grid[1]}"
