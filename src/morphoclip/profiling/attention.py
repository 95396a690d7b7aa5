"""Attention of a vision transformer in a field: maps of all crops joined, and drawn as one image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from morphoclip import schema
from morphoclip.data.shards.intensities import describe_field, percentile_column
from morphoclip.data.shards.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
from morphoclip.export.provenance import facts_of_training
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.models.attention import attention_maps, check_attention
from morphoclip.preparation.fields import bin_field, read_field
from morphoclip.preparation.sources import path_columns, read_load_data
from morphoclip.profiling.contact_sheet import COLOURS, GAP


def attention_of_field(encoder: Encoder, field: np.ndarray, crop_size: int, block: int = -1) -> np.ndarray:
    """`attention_maps` for a whole field, (maps, H, W) float32: crops tile the field, and overlaps are averaged.

    Args:
        field: (C, H, W) uint16 in the encoder's channel order, binned as in training, at least as large as a crop.
        crop_size: crop size of the encoder, in pixels.
    """
    low, high = (torch.from_numpy(limit) for limit in field_limits(encoder, field))
    corners = [(y, x) for y in _starts(field.shape[1], crop_size) for x in _starts(field.shape[2], crop_size)]
    total: np.ndarray | None = None
    counts = np.zeros(field.shape[1:], np.float32)
    for y, x in corners:
        crop = torch.from_numpy(field[None, :, y : y + crop_size, x : x + crop_size].copy())
        maps = attention_maps(encoder, encoder.preprocess(crop, low[None], high[None]), block)
        shown = torch.nn.functional.interpolate(maps, (crop_size, crop_size), mode="bilinear")[0].numpy()
        if total is None:
            total = np.zeros((len(shown), *counts.shape), np.float32)
        total[:, y : y + crop_size, x : x + crop_size] += shown
        counts[y : y + crop_size, x : x + crop_size] += 1
    assert total is not None  # a field has at least one crop
    return total / counts


def _starts(length: int, size: int) -> list[int]:
    """Starts of crops of `size` that cover `length` pixels."""
    return [*range(0, length - size, size), length - size]


def field_limits(encoder: Encoder | FeatureEncoder, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) intensities of the field, (C,) float32 each, at the percentiles used in the encoder's training."""
    known, description = facts_of_training(encoder), describe_field(field, encoder.channels)
    percentiles = (known.get("low_percentile", LOW_PERCENTILE), known.get("high_percentile", HIGH_PERCENTILE))
    low, high = (
        np.array([description[percentile_column(percentile, channel)] for channel in encoder.channels], np.float32)
        for percentile in percentiles
    )
    return low, np.maximum(high, low + 1)


def find_field(load_data: str, encoder: Encoder | FeatureEncoder, where: Mapping[str, str]) -> np.ndarray:
    """The first field in a load_data.csv with the Metadata_ values `where`, (C, H, W) uint16, binned as in training.

    Raises:
        ValueError: no field has these values.
    """
    table = read_load_data(load_data, channels=encoder.channels)
    chosen = table
    for column, value in where.items():
        chosen = chosen[chosen[column] == value]
        if chosen.empty:
            known = sorted(set(table[column]))[:8]
            raise ValueError(f"no field of {load_data} has {dict(where)}; {column} is one of {known} …")
    row = chosen.iloc[0]
    paths = dict(zip(encoder.channels, row[path_columns(encoder.channels)], strict=True))
    return bin_field(read_field(paths), facts_of_training(encoder).get("cropping", {}).get("bin", 1))


def attention_picture(encoder: Encoder, field: np.ndarray, crop_size: int, block: int = -1, width: int = 384):
    """A PIL image: the field in colour, the field weighted by attention, then one grey tile per map.

    There is one map per head, or for `per_channel` one per channel (`attention_maps`). `width` is the width of a tile in
    pixels.
    """
    from PIL import Image

    maps = attention_of_field(encoder, field, crop_size, block)
    low, high = (limit[:, None, None] for limit in field_limits(encoder, field))
    scaled = np.clip((field - low) / (high - low), 0, 1) ** 0.7
    colours = np.array([COLOURS.get(channel, (1.0, 1.0, 1.0)) for channel in encoder.channels])
    rgb = np.clip(np.einsum("chw,ck->hwk", scaled, colours), 0, 1)
    mean = maps.mean(axis=0)
    lit = rgb * (0.15 + 0.85 * _shade(mean))[..., None]
    tiles = [np.repeat(_shade(m)[..., None], 3, axis=2) for m in maps]
    height = round(width * field.shape[1] / field.shape[2])
    small = [Image.fromarray((tile * 255).astype(np.uint8)).resize((width, height)) for tile in (rgb, lit, *tiles)]
    columns = min(4, len(small))
    rows = -(-len(small) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for i, tile in enumerate(small):
        sheet.paste(tile, (i % columns * (width + GAP), i // columns * (height + GAP)))
    return sheet


def _shade(attention: np.ndarray) -> np.ndarray:
    """Attention scaled to [0, 1]: 1 at the 99th percentile, or at twice the mean if that is larger."""
    return np.clip(attention / max(2.0, np.quantile(attention, 0.99)), 0, 1)


def draw_attention(
    source: str | Path,
    load_data: str,
    out: str | Path,
    *,
    plate: str | None = None,
    well: str | None = None,
    site: str | None = None,
    block: int = -1,
    trust_remote_code: bool = False,
) -> Path:
    """Draw the attention in one field to a PNG file (`morphoclip attention`); `trust_remote_code` as in `load_encoder`.

    Raises:
        ValueError: `out` is not a PNG file, `load_data` is a folder, `check_attention` refuses the encoder or block (all
            raised before any computation), or the field does not exist or is smaller than a crop.
    """
    from morphoclip.export.load import load_encoder

    out = Path(out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"the image is written as PNG: name it {out.with_suffix('.png')} instead of {out}")
    if Path(load_data).is_dir():
        raise ValueError(
            f"{load_data} is a folder, but attention is drawn on a field of view: give the load_data.csv that lists its "
            "images (dataset folders hold only crops)"
        )
    encoder = check_attention(load_encoder(source, trust_remote_code=trust_remote_code), block)
    wanted = {schema.PLATE: plate, schema.WELL: well, schema.SITE: site}
    field = find_field(load_data, encoder, {column: value for column, value in wanted.items() if value is not None})
    # The crop size of training first: `per_channel` resizes crops of any size to its image_size.
    crop_size = encoder.trained_on.get("crop_size") or encoder.config.get("image_size") or min(field.shape[1:])
    if crop_size > min(field.shape[1:]):
        raise ValueError(f"the field is {field.shape[1:]} pixels, smaller than the encoder's crops of {crop_size}")
    out.parent.mkdir(parents=True, exist_ok=True)
    attention_picture(encoder, field, crop_size, block).save(out)
    return out
