"""Where a vision transformer looks in a field: attention of its last block, crop by crop, as one picture."""

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


def attention_of_field(
    encoder: Encoder | FeatureEncoder, field: np.ndarray, crop_size: int, block: int = -1
) -> np.ndarray:
    """The maps of `attention_maps` for a whole field, (maps, H, W) float32: crops side by side, means where they overlap.

    Args:
        field: (C, H, W) uint16 in the encoder's channel order, binned as in training, at least a crop in size.
        crop_size: side of the crops the encoder sees.
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
    assert total is not None  # a field holds at least one crop
    return total / counts


def _starts(length: int, size: int) -> list[int]:
    """Where crops of `size` begin so that they cover `length` pixels."""
    return [*range(0, length - size, size), length - size]


def field_limits(encoder: Encoder | FeatureEncoder, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The field's own intensities, (C,) float32 each, at the percentiles the encoder was trained with."""
    known, description = facts_of_training(encoder), describe_field(field, encoder.channels)
    percentiles = (known.get("low_percentile", LOW_PERCENTILE), known.get("high_percentile", HIGH_PERCENTILE))
    low, high = (
        np.array([description[percentile_column(percentile, channel)] for channel in encoder.channels], np.float32)
        for percentile in percentiles
    )
    return low, np.maximum(high, low + 1)


def find_field(load_data: str, encoder: Encoder | FeatureEncoder, where: Mapping[str, str]) -> np.ndarray:
    """The first field of a load_data.csv with these Metadata_ values, (C, H, W) uint16, binned as in training.

    Raises:
        ValueError: no field has them.
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


def attention_picture(
    encoder: Encoder | FeatureEncoder, field: np.ndarray, crop_size: int, block: int = -1, width: int = 384
):
    """A PIL image: the field in colour, the same where attention is above even, then a tile a map in grey.

    A map is a head's, of `per_channel` a channel's (`attention_maps`).
    `width` is a tile's, in pixels.
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
    for place, tile in enumerate(small):
        sheet.paste(tile, (place % columns * (width + GAP), place // columns * (height + GAP)))
    return sheet


def _shade(attention: np.ndarray) -> np.ndarray:
    """Attention in [0, 1]: full at the 99th percentile, or at twice even attention where nothing stands out."""
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
    """What `morphoclip attention` does: the picture of one field to a PNG file; `trust_remote_code` as `load_encoder`'s.

    Raises:
        ValueError: before anything is computed, of another file than a PNG, a folder for a table, an encoder or a block
            that `check_attention` refuses; of a field that is not there or smaller than a crop.
    """
    from morphoclip.export.load import load_encoder

    out = Path(out)
    if out.suffix.lower() != ".png":
        raise ValueError(f"the picture is a PNG file: call it {out.with_suffix('.png')} instead of {out}")
    if Path(load_data).is_dir():
        raise ValueError(
            f"{load_data} is a folder, and attention is drawn on a field: give the load_data.csv that lists its images "
            "(dataset folders hold crops)"
        )
    encoder = load_encoder(source, trust_remote_code=trust_remote_code)
    check_attention(encoder, block)
    asked = {schema.PLATE: plate, schema.WELL: well, schema.SITE: site}
    field = find_field(load_data, encoder, {column: value for column, value in asked.items() if value is not None})
    # What `embed` cuts comes first: `per_channel` makes its image_size of crops of any size.
    crop_size = encoder.trained_on.get("crop_size") or encoder.config.get("image_size") or min(field.shape[1:])
    if crop_size > min(field.shape[1:]):
        raise ValueError(f"the field is {field.shape[1:]} pixels, the encoder takes crops of {crop_size}")
    out.parent.mkdir(parents=True, exist_ok=True)
    attention_picture(encoder, field, crop_size, block).save(out)
    return out
