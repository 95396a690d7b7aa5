"""Reading a dataset folder by row: one pread a crop, the index memory-mapped (DESIGN §3.2)."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.data import schema
from morphoclip.data.codecs import get_codec
from morphoclip.data.fields import percentile_column
from morphoclip.data.manifest import HIGH_PERCENTILE, LOW_PERCENTILE, read_manifest, scaling_key
from morphoclip.data.perturbations import PerturbationTable
from morphoclip.data.splits import read_split

PLATE_COLUMNS = 48  # of a 1536-well plate: a position means the same place on every smaller one
OPEN_SHARDS = 64  # file handles a process keeps


@dataclass(frozen=True)
class Sample:
    """One crop and where it comes from; the codes are positions in sorted unique values of the dataset's split.

    Attributes:
        image: (C, H, W) uint16.
        low, high: (C,) float32, the intensities that scale to 0 and 1.
        plate, well, perturbation, condition: codes; `condition` is the row of the dataset's `table`.
        position: place on the plate, row · 48 + column, A01 = 0.
        sample: row of the index.
        is_control: negative control.
    """

    image: np.ndarray
    low: np.ndarray
    high: np.ndarray
    plate: int
    well: int
    position: int
    sample: int
    perturbation: int
    condition: int
    is_control: bool


@dataclass(frozen=True)
class FieldCodes:
    """Integer codes of a set of fields, each (F,) int64 and -1 where a field is not in the split; `is_control` bool."""

    plate: np.ndarray
    well: np.ndarray
    position: np.ndarray
    perturbation: np.ndarray
    condition: np.ndarray
    is_control: np.ndarray


def code_fields(fields: pd.DataFrame, present: np.ndarray, table: PerturbationTable) -> FieldCodes:
    """Codes of the rows `present` of `fields`: ranks among sorted unique values, so the order of rows does not matter."""
    chosen = fields.iloc[present]
    plate = [schema.SOURCE, schema.BATCH, schema.PLATE]
    wells, name = np.unique(chosen[schema.WELL].to_numpy(str), return_inverse=True)
    codes = {
        "plate": _ranks(chosen, plate),
        "well": _ranks(chosen, [*plate, schema.WELL]),
        "position": np.array([_position(well) for well in wells], np.int64)[name],
        "perturbation": _ranks(chosen, [schema.PERTURBATION]),
        "condition": table.codes(chosen),
        "is_control": (chosen[schema.CONTROL_TYPE] == schema.NEGCON).to_numpy(bool),
    }
    spread = {name: np.full(len(fields), -1 if name != "is_control" else False) for name in codes}
    for name, values in codes.items():
        spread[name][present] = values
    return FieldCodes(**spread)


def _ranks(fields: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    return fields.groupby(list(columns), sort=True).ngroup().to_numpy(np.int64)


def _position(well: str) -> int:
    row, column = schema.well_position(well)
    return row * PLATE_COLUMNS + column


class ShardDataset:
    """A dataset folder as a sequence of crops. Pickles small and survives fork and spawn: workers reopen it.

    Args:
        folder: made by `ShardWriter`.
        split: name of a split (`splits/<name>.npy`), or None for all crops.
        scale_by: whose percentiles scale a crop: its `field`'s own, the median over the `plate`'s fields in the split,
            or the median over the fields of the plate's `negcon` wells.
        low_percentile, high_percentile: which of the stored percentiles (.01 .1 1 50 99 99.9 99.99).

    Attributes:
        manifest (dict), channels (tuple), pixel_size_um (float or None);
        index: column name -> memory-mapped array, a row a crop of the whole folder;
        fields: DataFrame, a row a field of the whole folder;
        rows: (len,) int64, the index rows in this split;
        present: rows of `fields` that have crops in this split;
        table: `PerturbationTable` of those fields, and of no others;
        codes: `FieldCodes` of `fields`.

    Raises:
        FileNotFoundError: no dataset, an unfinished one, or no such split.
        ValueError: a newer format, an unknown scaling or percentile, or `negcon` on a plate without negative controls.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        scale_by: str = "field",
        low_percentile: float = LOW_PERCENTILE,
        high_percentile: float = HIGH_PERCENTILE,
    ) -> None:
        self.folder = Path(folder)
        self.split = split
        self.scaling = (scale_by, low_percentile, high_percentile)
        self._open()

    def _open(self) -> None:
        self.manifest = read_manifest(self.folder)
        self.channels = tuple(self.manifest["channels"])
        self.pixel_size_um = self.manifest["pixel_size_um"]
        self.codec = get_codec(self.manifest["codec"])
        self.shape = (len(self.channels), self.manifest["crop_size"], self.manifest["crop_size"])
        self.index = _map_index(self.folder / "index.arrow")
        self.fields = pd.read_parquet(self.folder / "fields.parquet")
        everything = self.split is None
        self.rows = np.arange(len(self.index["field"])) if everything else read_split(self.folder, self.split)
        self.present = np.unique(self.index["field"][self.rows])
        self._files: OrderedDict[int, object] = OrderedDict()
        self._low, self._high = field_scaling(self.fields, self.present, self.channels, *self.scaling)

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "split": self.split, "scaling": self.scaling}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def table(self) -> PerturbationTable:
        return PerturbationTable.from_frame(self.fields.iloc[self.present])

    @cached_property
    def codes(self) -> FieldCodes:
        return code_fields(self.fields, self.present, self.table)

    def __getitem__(self, item: int) -> Sample:
        if not -len(self) <= item < len(self):
            raise IndexError(f"crop {item} of a dataset of {len(self)}")
        field = self.index["field"][self.rows[item]]
        codes = {name: values[field].item() for name, values in vars(self.codes).items()}
        low, high = self.intensities([item])
        return Sample(image=self.read([item])[0], low=low[0], high=high[0], sample=int(self.rows[item]), **codes)

    def fields_of(self, items: np.ndarray | Sequence[int]) -> np.ndarray:
        """The row of `fields` each crop comes from."""
        return self.index["field"][self.rows[items]]

    def intensities(self, items: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), each (n, C) float32, of crops."""
        field = self.fields_of(items)
        return self._low[field], self._high[field]

    def read(self, items: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Crops as (n, C, H, W) uint16, into `out` where given.

        Raises:
            ValueError: a crop's bytes differ from its checksum; the message names shard and key.
            FileNotFoundError: a shard is gone.
        """
        if out is None:
            out = np.empty((len(items), *self.shape), np.uint16)
        for place, row in enumerate(self.rows[items]):
            self._read_row(row, out[place])
        return out

    def _read_row(self, row: int, out: np.ndarray) -> None:
        shard, nbytes = int(self.index["shard"][row]), int(self.index["nbytes"][row])
        data = os.pread(self._file(shard).fileno(), nbytes, int(self.index["offset"][row]))
        if len(data) != nbytes or zlib.crc32(data) != self.index["crc32"][row]:
            what = f"is cut off ({len(data)} of {nbytes} bytes)" if len(data) != nbytes else "fails its checksum"
            raise ValueError(
                f"{self._path(shard)}: sample {row:09d} {what}; the shard is damaged: copy it again or remake the dataset"
            )
        self.codec.decode(data, out)

    def _path(self, shard: int) -> Path:
        return self.folder / "shards" / self.manifest["shards"][shard]["name"]

    def _file(self, shard: int):
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        try:
            file = open(self._path(shard), "rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self._path(shard)} is missing, though {self.folder}/manifest.json lists it: copy the dataset again"
            ) from error
        self._files[shard] = file
        if len(self._files) > OPEN_SHARDS:
            self._files.popitem(last=False)[1].close()
        return file

    def close(self) -> None:
        """Close the shards that are open; reading opens them again."""
        while self._files:
            self._files.popitem()[1].close()

    def channel_statistics(self, max_crops: int = 2048) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (C,) float32 each, of the scaled pixels of this split.

        From the manifest where it has them for all crops under this scaling; else measured on up to `max_crops` crops
        spread evenly over the split, so that held-out pixels do not enter.
        """
        known = self.manifest["statistics"].get(scaling_key(*self.scaling))
        if self.split is None and known is not None:
            return np.float32(known["mean"]), np.float32(known["std"])
        items = np.unique(np.linspace(0, len(self) - 1, min(max_crops, len(self))).astype(np.int64))
        sums = np.zeros((2, len(self.channels)))
        for item in items:
            low, high = (value[0, :, None] for value in self.intensities([item]))
            pixels = self.read([item])[0].reshape(len(self.channels), -1)
            scaled = np.clip((pixels - low) / (high - low), 0, 1)
            sums += scaled.mean(1), (scaled**2).mean(1)
        mean, square = sums / len(items)
        return np.float32(mean), np.float32(np.sqrt(square - mean**2))


def _map_index(path: Path) -> dict[str, np.ndarray]:
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return {name: table[name].chunk(0).to_numpy(zero_copy_only=True) for name in table.column_names}


def field_scaling(
    fields: pd.DataFrame,
    present: np.ndarray,
    channels: Sequence[str],
    scale_by: str,
    low_percentile: float,
    high_percentile: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The intensities (F, C) float32 that scale to 0 and 1 for every field; `present` are the split's fields.

    Raises:
        ValueError: unknown `scale_by` or percentile; a plate of the split without negative controls.
    """
    bounds = []
    for percentile in (low_percentile, high_percentile):
        columns = [percentile_column(percentile, channel) for channel in channels]
        if not set(columns) <= set(fields):
            stored = sorted({c.split("_")[0][1:] for c in fields if c.startswith("p")}, key=float)
            raise ValueError(f"percentile {percentile} is not stored; the dataset has {', '.join(stored)}")
        bounds.append(fields[columns])
    if scale_by != "field":
        if scale_by == "plate":
            reference = fields.index.isin(present)
        elif scale_by == "negcon":
            reference = (fields[schema.CONTROL_TYPE] == schema.NEGCON).to_numpy()
        else:
            raise ValueError(f"scale_by={scale_by!r} is none of field, plate, negcon")
        plate = fields.groupby([schema.SOURCE, schema.BATCH, schema.PLATE], sort=True).ngroup()
        lacking = sorted(set(fields.loc[present, schema.PLATE][~plate[present].isin(plate[reference])]))
        if lacking:
            raise ValueError(
                f"plate {lacking[0]} has no negcon fields to scale by ({len(lacking)} such plates): "
                "use scale_by=field or plate, or leave the plate out"
            )
        bounds = [values[reference].groupby(plate[reference]).median().reindex(plate).to_numpy() for values in bounds]
    low, high = (np.asarray(values, np.float32) for values in bounds)
    return low, np.maximum(high, low + 1)  # a channel of one value scales to 0, not to a division by zero
