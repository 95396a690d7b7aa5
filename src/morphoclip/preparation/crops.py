"""One field ▶ its encoded crops: the work of one process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from morphoclip import schema
from morphoclip.data.shards.field_table import FIELD_KEY
from morphoclip.data.shards.intensities import NUCLEUS_CHANNEL, describe_field
from morphoclip.data.shards.writer import EncodedCrop, encode_crop
from morphoclip.preparation import fields
from morphoclip.preparation.sources import PATH

MODES = ("nuclei", "grid", "random")


@dataclass(frozen=True)
class CropSettings:
    """Settings of cutting crops, documented in `prepare_dataset`."""

    channels: tuple[str, ...]
    crop_size: int
    mode: str
    crops_per_field: int | None
    bin: int
    pixel_size_um: float
    otsu_factor: float
    min_foreground: float
    codec: str
    seed: int


@dataclass(frozen=True)
class PreparedCrop:
    y: int
    x: int
    foreground: float
    encoded: EncodedCrop


@dataclass(frozen=True)
class PreparedField:
    """One field after reading: its row for fields.parquet, its crops, and its best crop if none passed.

    If the field is quarantined, `reason` says why and the rest is empty.
    """

    row: dict
    crops: tuple[PreparedCrop, ...] = ()
    best: PreparedCrop | None = None
    reason: str = ""


def prepare_field(source: Mapping[str, str], settings: CropSettings) -> PreparedField:
    """Read one field (a row of a table of fields) and encode its crops; an unusable field gets a `reason`."""
    metadata = {name: value for name, value in source.items() if name.startswith(schema.PREFIX)}
    paths = {channel: source[PATH + channel] for channel in settings.channels}
    try:
        field = fields.bin_field(fields.read_field(paths), settings.bin)
        if min(field.shape[1:]) < settings.crop_size:
            reason = f"field of {field.shape[1:]} px is smaller than crop_size {settings.crop_size}"
            raise fields.FieldError(paths[NUCLEUS_CHANNEL], reason)
    except fields.FieldError as error:
        return PreparedField(metadata | {"path": error.path}, reason=error.reason)
    description = describe_field(field, settings.channels)
    dna = field[settings.channels.index(NUCLEUS_CHANNEL)]
    centres = fields.find_nuclei(dna, settings.pixel_size_um * settings.bin)
    row = metadata | {schema.CELL_COUNT: len(centres)} | description
    # Otsu's threshold splits even noise in two, so a field without nuclei is defined to have no foreground.
    threshold = settings.otsu_factor * description["otsu_DNA"] if len(centres) else np.inf
    field_name = "/".join(metadata.get(column, "") for column in FIELD_KEY)
    rng = np.random.default_rng([settings.seed, *hashlib.sha256(field_name.encode()).digest()[:8]])

    def crop(corner: np.ndarray) -> PreparedCrop:
        y, x = map(int, corner)
        pixels = field[:, y : y + settings.crop_size, x : x + settings.crop_size]
        share = fields.foreground(dna, corner, settings.crop_size, threshold)
        return PreparedCrop(y, x, share, encode_crop(pixels, row, settings.channels, settings.codec))

    corners = _corners(dna, centres, threshold, settings, rng)
    passing = [
        c for c in corners if fields.foreground(dna, c, settings.crop_size, threshold) >= settings.min_foreground
    ]
    if settings.crops_per_field is not None and len(passing) > settings.crops_per_field:
        chosen = np.sort(rng.choice(len(passing), settings.crops_per_field, replace=False))
        passing = [passing[i] for i in chosen]
    if passing:
        return PreparedField(row, tuple(crop(corner) for corner in passing))
    candidates = fields.random_crops(dna, threshold, settings.crop_size, 1, rng, min_foreground=settings.min_foreground)
    return PreparedField(row, best=crop(candidates[0]))


def _corners(dna: np.ndarray, centres: np.ndarray, threshold: float, settings: CropSettings, rng) -> np.ndarray:
    if settings.mode == "nuclei":
        return fields.nucleus_crops(centres, dna.shape, settings.crop_size)
    if settings.mode == "grid":
        return fields.grid_crops(dna.shape, settings.crop_size)
    number = settings.crops_per_field or 16
    return fields.random_crops(dna, threshold, settings.crop_size, number, rng, min_foreground=settings.min_foreground)
