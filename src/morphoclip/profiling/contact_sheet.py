"""Contact sheets: crops of a few wells with the same contrast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.shards.dataset import ShardDataset

# DNA blue, ER green, AGP red; RNA and Mito add whitish cytoplasm detail without hiding the three.
COLOURS = {
    "DNA": (0.15, 0.35, 1.0),
    "ER": (0.1, 0.75, 0.2),
    "RNA": (0.35, 0.35, 0.1),
    "AGP": (1.0, 0.25, 0.1),
    "Mito": (0.55, 0.1, 0.55),
}
GAP = 2  # pixels between crops


def contact_sheet(dataset: ShardDataset, fields: Sequence[int], crops: int = 6) -> list[np.ndarray]:
    """One strip of crops per field, all with the contrast of the first.

    Args:
        dataset: source of the crops.
        fields: rows of `dataset.fields`; put the control first, because its percentiles set the contrast of all.
        crops: number of crops per field, evenly spread over those it has.

    Returns:
        One image per field, uint8 (H, crops·(W + GAP) − GAP, 3).

    Raises:
        ValueError: a field has no crop in the dataset's split.
    """
    field_of = dataset.index["field"][dataset.rows]
    items = []
    for field in fields:
        own = np.flatnonzero(field_of == field)
        if not own.size:
            raise ValueError(f"field {field} has no crop in split {dataset.split!r} of {dataset.folder}")
        items.append(own[np.linspace(0, len(own) - 1, crops).round().astype(int)])
    low, high = dataset.intensities(items[0][:1])
    return [_strip(dataset, chosen, low[0], high[0]) for chosen in items]


def well_pictures(dataset: ShardDataset, wells: pd.DataFrame, crops: int = 2, size: int = 120) -> list[np.ndarray]:
    """A small image of each well, all with the contrast of the first: put the negative control first.

    Args:
        wells: Metadata_Plate and Metadata_Well, one row per well. crops: crops per well, side by side.
        size: height in pixels; smaller crops are not enlarged.
    """
    from PIL import Image

    strips = contact_sheet(dataset, well_fields(dataset, wells), crops)
    share = min(1.0, size / strips[0].shape[0])
    to = (round(strips[0].shape[1] * share), round(strips[0].shape[0] * share))
    return [np.asarray(Image.fromarray(strip).resize(to, Image.Resampling.LANCZOS)) for strip in strips]


def well_fields(dataset: ShardDataset, wells: pd.DataFrame) -> list[int]:
    """The row in `dataset.fields` of each well's first field with crops.

    Raises:
        ValueError: a well has no crops.
    """
    keys = [schema.PLATE, schema.WELL]
    fields = dataset.fields.iloc[dataset.present].rename_axis("field").reset_index()
    fields = fields.sort_values([c for c in (schema.SITE,) if c in fields], kind="stable").drop_duplicates(keys)
    found = wells[keys].astype(str).merge(fields[[*keys, "field"]].astype(dict.fromkeys(keys, str)), how="left")
    if found["field"].isna().any():
        bare = found[found["field"].isna()].iloc[0]
        raise ValueError(
            f"plate {bare[schema.PLATE]} well {bare[schema.WELL]} has no crop in {dataset.folder}: "
            "give dataset=<the folder the profiles were made from>"
        )
    return found["field"].astype(int).tolist()


def crop_pictures(dataset: ShardDataset, items: Sequence[int]) -> list[np.ndarray]:
    """One image per crop, uint8 (H, W, 3), all with the contrast of the first crop's field."""
    rows = np.asarray(items)
    low, high = dataset.intensities(rows[:1])
    return [_strip(dataset, rows[i : i + 1], low[0], high[0]) for i in range(len(rows))]


def _strip(dataset: ShardDataset, items: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    images = dataset.read(items).astype(np.float32)  # (n, C, H, W)
    scaled = np.clip((images - low[:, None, None]) / (high - low)[:, None, None], 0, 1) ** 0.7
    colours = np.array([COLOURS.get(channel, (1.0, 1.0, 1.0)) for channel in dataset.channels], np.float32)
    rgb = np.clip(np.einsum("nchw,ck->nhwk", scaled, colours), 0, 1)
    n, height, width, _ = rgb.shape
    strip = np.ones((height, n * (width + GAP) - GAP, 3), np.float32)
    for i, crop in enumerate(rgb):
        strip[:, i * (width + GAP) : i * (width + GAP) + width] = crop
    return (strip * 255).astype(np.uint8)
