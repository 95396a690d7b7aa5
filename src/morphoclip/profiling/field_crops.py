"""Crops cut from fields of view on the fly, by the same rules as for a dataset."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import copy
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from morphoclip import schema
from morphoclip.data.metadata.annotations import annotate
from morphoclip.data.shards.codecs import get_codec
from morphoclip.data.shards.intensities import percentile_column
from morphoclip.data.shards.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
from morphoclip.preparation.crops import CropSettings, PreparedCrop, PreparedField, prepare_field
from morphoclip.preparation.fields import MIN_FOREGROUND
from morphoclip.preparation.sources import PATH, find_images, read_load_data
from morphoclip.profiling.crops import Crops, plate_codes, well_codes


class FieldCrops:
    """The crops of the fields in a load_data.csv or a folder of TIFFs; iterates over `Crops`, one well at a time.

    The crops and their order equal those of a dataset prepared with the same settings. A field that cannot be read is
    left out, recorded in `quarantine` (field row -> reason), and reported in a warning at the end.

    Args:
        load_data: path, glob or URL of load_data.csv files, or a folder of PerkinElmer images, see `find_images`.
        channels: names in the encoder's order.
        crop_size: pixels, after binning.
        mode: `grid`, `nuclei` or `random`, as in `prepare_dataset`.
        metadata: folder with plate maps and annotation tables; without it only plate and well are known.
        bin, pixel_size_um, otsu_factor, min_foreground, crops_per_field, seed: as in `prepare_dataset`.
        scale_by, low_percentile, high_percentile: intensity scaling; only `field` is possible without a dataset.
        num_workers: processes that read ahead.

    Attributes:
        fields: table of fields; `Metadata_cell_count` is filled while they are read.
        well, plate: codes of its rows, (F,) int64. visited: its rows that are read, sorted.
        crop_size: pixels. total: None, because the number of crops is not known in advance.

    Raises:
        ValueError: `scale_by` is not `field`, or the load_data.csv lacks a channel.
    """

    total = None

    def __init__(
        self,
        load_data: str | Path,
        channels: tuple[str, ...],
        *,
        crop_size: int,
        mode: str = "grid",
        metadata: str | Path | None = None,
        bin: int = 1,
        pixel_size_um: float = 0.598,
        otsu_factor: float = 1.0,
        min_foreground: float | None = None,
        crops_per_field: int | None = None,
        seed: int = 0,
        scale_by: str = "field",
        low_percentile: float = LOW_PERCENTILE,
        high_percentile: float = HIGH_PERCENTILE,
        num_workers: int = 0,
    ) -> None:
        if scale_by != "field":
            raise ValueError(
                f"scale_by={scale_by} needs the percentiles of all fields of a plate: make a dataset first "
                "(`morphoclip data prepare`) and embed that"
            )
        if Path(load_data).is_dir():
            table = find_images(load_data, channels=channels)
        else:
            table = read_load_data(str(load_data), channels=channels)
        table = table if metadata is None else annotate(table, metadata)
        self.sources = table.iloc[np.argsort(well_codes(table), kind="stable")].reset_index(drop=True)
        self.fields = self.sources.drop(columns=[c for c in table if c.startswith(PATH)]).assign(
            **{schema.CELL_COUNT: -1}
        )
        self.well, self.plate = well_codes(self.fields), plate_codes(self.fields)
        self.visited, self.crop_size = np.arange(len(self.fields)), crop_size
        self.channels = tuple(channels)
        self.pixel_size_um = pixel_size_um * bin
        self.scaling = (scale_by, low_percentile, high_percentile)
        self.num_workers = num_workers
        self.quarantine: dict[int, str] = {}
        self.settings = CropSettings(
            channels=self.channels,
            crop_size=crop_size,
            mode=mode,
            crops_per_field=crops_per_field,
            bin=bin,
            pixel_size_um=pixel_size_um,
            otsu_factor=otsu_factor,
            min_foreground=MIN_FOREGROUND if min_foreground is None else min_foreground,
            codec="raw",
            seed=seed,
        )

    def only(self, fields: np.ndarray) -> FieldCrops:
        """The crops of some fields; `fields` is bool, (F,)."""
        part = copy(self)
        part.visited = self.visited[fields[self.visited]]
        return part

    def crops_per_plate(self) -> np.ndarray:
        """Number of fields by plate code, in proportion to which the crops are."""
        return np.bincount(self.plate[self.visited], minlength=self.plate.max() + 1)

    def __iter__(self) -> Iterator[Crops]:
        reader = _Reader(self.sources.iloc[self.visited].to_dict("records"), self.settings)
        loader = torch.utils.data.DataLoader(reader, batch_size=None, num_workers=self.num_workers)
        numbers = self.visited.tolist()
        for _, numbered in groupby(zip(numbers, loader, strict=True), key=lambda pair: self.well[pair[0]]):
            if crops := self._well(list(numbered)):
                yield crops
        if self.quarantine:
            first = next(iter(self.quarantine.values()))
            warnings.warn(f"{len(self.quarantine)} fields left out, the first: {first}", stacklevel=2)

    def _well(self, fields: list[tuple[int, PreparedField]]) -> Crops | None:
        """The crops of a well, or its best one if none passes; None if no field can be read."""
        for number, field in fields:
            if field.reason:
                self.quarantine[number] = f"{field.row['path']}: {field.reason}"
            else:
                self.fields.loc[number, schema.CELL_COUNT] = field.row[schema.CELL_COUNT]
        found = [(number, field, crop) for number, field in fields for crop in field.crops]
        lacking = not found
        if lacking:
            candidates = [(number, field, field.best) for number, field in fields if field.best]
            found = sorted(candidates, key=lambda candidate: -candidate[2].foreground)[:1]
        if not found:
            return None
        _, low, high = self.scaling
        return Crops(
            images=torch.from_numpy(np.stack([self._decode(crop) for _, _, crop in found])),
            low=self._limits(found, low),
            high=self._limits(found, high),
            field=np.array([number for number, _, _ in found]),
            y=np.array([crop.y for _, _, crop in found]),
            x=np.array([crop.x for _, _, crop in found]),
            lacking=np.full(len(found), lacking),
        )

    def _decode(self, crop: PreparedCrop) -> np.ndarray:
        out = np.empty((len(self.channels), self.settings.crop_size, self.settings.crop_size), np.uint16)
        get_codec("raw").decode(crop.encoded.data, out)
        return out

    def _limits(self, found: list[tuple[int, PreparedField, PreparedCrop]], percentile: float) -> torch.Tensor:
        columns = [percentile_column(percentile, channel) for channel in self.channels]
        return torch.tensor([[field.row[column] for column in columns] for _, field, _ in found], dtype=torch.float32)


class _Reader(torch.utils.data.Dataset):
    """Item i is field i, read and cut into crops."""

    def __init__(self, rows: list[dict], settings: CropSettings) -> None:
        self.rows = rows
        self.settings = settings

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> PreparedField:
        return prepare_field(self.rows[i], self.settings)
