"""Reading a dataset folder by row: one pread per crop, the index memory-mapped."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.data.metadata.codes import FieldCodes, code_fields
from morphoclip.data.metadata.perturbations import PerturbationTable
from morphoclip.data.shards.codecs import crc32, get_codec
from morphoclip.data.shards.index import map_index
from morphoclip.data.shards.labels import check_labels
from morphoclip.data.shards.locks import ProcessLock
from morphoclip.data.shards.manifest import HIGH_PERCENTILE, LOW_PERCENTILE, read_manifest, scaling_key
from morphoclip.data.shards.remote import Store, is_remote, local_metadata
from morphoclip.data.shards.scaling import field_scaling, scaling_columns
from morphoclip.data.shards.split_files import read_split
from morphoclip.data.shards.statistics import refuse_constant, scale

OPEN_SHARDS = 64  # file handles a dataset keeps open
CHUNK = 2**20  # index rows per block, so that a large index is never copied


class SampleError(ValueError):
    """A sample that cannot be read; the message names shard and key, the fault and the remedy."""


@dataclass(frozen=True)
class Sample:
    """One crop and its origin; codes are ranks among the sorted unique values of the dataset's split.

    Attributes:
        image: (C, H, W) uint16.
        low, high: (C,) float32, the intensities that scale to 0 and 1.
        plate, well, perturbation, condition: codes; `condition` is the row of the dataset's `table`.
        position: well position, row · 48 + column, A01 = 0.
        sample: row of the index.
        is_control: True for negative controls.
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


class ShardDataset:
    """A dataset folder as a sequence of crops.

    It is thread-safe, survives a fork, and pickles without its data: a worker process opens the folder again.

    Opening reads the percentiles for scaling; `fields` loads on first use, when a few samples are compared with their rows.

    Args:
        folder: folder made by `ShardWriter`, or its URL, from which crops are read by range requests (for training see
            `streaming`).
        split: name of a split (`splits/<name>.npy`), the path of a .npy file of index rows, or None for all crops.
        scale_by: the percentiles that scale a crop: those of its `field`, their median over the `plate`'s fields in the
            split, or their median over the fields of the plate's `negcon` wells.
        low_percentile, high_percentile: which of the stored percentiles (.01 .1 1 50 99 99.9 99.99).

    Attributes:
        manifest (dict), channels (tuple), pixel_size_um (float or None);
        index: column name -> memory-mapped array, one row per crop of the whole folder;
        fields: DataFrame, one row per field of the whole folder;
        rows: (len,) int64, the index rows in this split;
        present: rows of `fields` that have crops in this split;
        table: `PerturbationTable` of those fields;
        codes: `FieldCodes` of `fields`.

    Raises:
        FileNotFoundError: no dataset, an unfinished one, or no such split.
        ValueError: a newer format, no images, an unknown scaling or percentile, `negcon` without negative controls, or rows in
            another order.
    """

    unit = "crop"  # what a sample is

    def __init__(
        self,
        folder: str | Path,
        split: str | None = None,
        scale_by: str = "field",
        low_percentile: float = LOW_PERCENTILE,
        high_percentile: float = HIGH_PERCENTILE,
    ) -> None:
        self.root = str(folder)
        self.split = split
        self.scaling = (scale_by, low_percentile, high_percentile)
        self._open()

    def _open(self) -> None:
        self.store = Store(self.root) if is_remote(self.root) else None
        self.folder = Path(self.root) if self.store is None else local_metadata(self.store, self.split)
        self.manifest = read_manifest(self.folder)
        self.channels = tuple(self.manifest["channels"])
        self.pixel_size_um = self.manifest["pixel_size_um"]
        self.index = map_index(self.folder / "index.arrow")
        self._split_rows = None if self.split is None else read_split(self.folder, self.split)
        self._files: OrderedDict[int, _Handle] = OrderedDict()
        self._files_lock = ProcessLock()
        self._open_samples()

    def _open_samples(self) -> None:
        if self.manifest["crop_size"] is None:
            raise ValueError(f"{self.root} holds profiles of wells, no images: give a dataset of crops")
        self.codec = get_codec(self.manifest["codec"])
        self.shape = (len(self.channels), self.manifest["crop_size"], self.manifest["crop_size"])
        columns = scaling_columns(self.folder / "fields.parquet", self.channels, *self.scaling)
        bounds = pd.read_parquet(self.folder / "fields.parquet", columns=columns)
        present = np.empty(0, np.int64) if self.scaling[0] == "field" else self.present
        self._low, self._high = field_scaling(bounds, present, self.channels, *self.scaling)

    def __getstate__(self) -> dict:
        return {"root": self.root, "split": self.split, "scaling": self.scaling}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.index["field"] if self._split_rows is None else self._split_rows)

    @cached_property
    def rows(self) -> np.ndarray:
        """The index rows of this split, (len,) int64."""
        return np.arange(len(self)) if self._split_rows is None else self._split_rows

    def rows_of(self, items: np.ndarray | Sequence[int]) -> np.ndarray:
        """The index row of each crop."""
        return np.asarray(items) if self._split_rows is None else self._split_rows[items]

    @cached_property
    def fields(self) -> pd.DataFrame:
        check_labels(self, fields := pd.read_parquet(self.folder / "fields.parquet"))
        self.close()
        return fields

    @cached_property
    def present(self) -> np.ndarray:
        seen = np.zeros(self.manifest["counts"]["fields"], bool)
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            seen[self.index["field"][part if self._split_rows is None else self._split_rows[part]]] = True
        return np.flatnonzero(seen)

    @cached_property
    def table(self) -> PerturbationTable:
        return PerturbationTable.from_frame(self.fields.iloc[self.present])

    @cached_property
    def codes(self) -> FieldCodes:
        return code_fields(self.fields, self.present, self.table)

    def __getitem__(self, item: int) -> Sample:
        if not -len(self) <= item < len(self):
            raise IndexError(f"crop {item} is out of range for a dataset of {len(self)} crops")
        if item < 0:
            item += len(self)
        field = int(self.fields_of([item])[0])
        codes = {name: values[field].item() for name, values in vars(self.codes).items()}
        low, high = self.intensities([item])
        return Sample(
            image=self.read([item])[0], low=low[0], high=high[0], sample=int(self.rows_of([item])[0]), **codes
        )

    def fields_of(self, items: np.ndarray | Sequence[int]) -> np.ndarray:
        """The row of `fields` of each crop."""
        return self.index["field"][self.rows_of(items)]

    def intensities(self, items: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) of crops, each (n, C) float32: the intensities that scale to 0 and 1."""
        field = self.fields_of(items)
        return self._low[field], self._high[field]

    def read(self, items: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Crops as (n, C, H, W) uint16, into `out` where given.

        Raises:
            SampleError: a crop is truncated, beyond its shard's end, or fails its checksum.
            FileNotFoundError: a shard is missing.
        """
        if out is None:
            out = np.empty((len(items), *self.shape), np.uint16)
        for place, row in enumerate(self.rows_of(items)):
            self.read_row(int(row), out[place])
        return out

    def read_row(self, row: int, out: np.ndarray) -> None:
        """Read the crop of an index row into `out` (C, H, W) uint16; raises as `read` does."""
        shard, nbytes, offset = (int(self.index[name][row]) for name in ("shard", "nbytes", "offset"))
        header = nbytes - out.nbytes
        if self.codec.verbatim and header >= 0:  # read directly into `out`
            head = bytearray(header)
            found = self.read_bytes(shard, [head, out], offset)
            checksum = crc32(out.reshape(-1).view(np.uint8), crc32(head)) if found == nbytes else None
        else:
            data = bytearray(nbytes)
            found = self.read_bytes(shard, [data], offset)
            checksum = crc32(data) if found == nbytes else None
        if found != nbytes:
            raise self._error(shard, row, f"is truncated ({found} of {nbytes} bytes)")
        if checksum != self.index["crc32"][row]:
            raise self._error(shard, row, "fails its checksum")
        if not (self.codec.verbatim and header >= 0):
            self.codec.decode(data, out)

    def _error(self, shard: int, row: int, what: str) -> SampleError:
        return SampleError(
            f"{self.root}/{self._name(shard)}: sample {row:09d} {what}; the shard is damaged: copy it again or remake the dataset "
            "(`morphoclip data verify` lists all such samples)"
        )

    def _name(self, shard: int) -> str:
        return f"shards/{self.manifest['shards'][shard]['name']}"

    def read_bytes(self, shard: int, buffers: list, offset: int) -> int:
        """Fill `buffers` from a shard and return the number of bytes read; a handle in use is not closed."""
        if self.store is not None:
            size = sum(len(memoryview(buffer).cast("B")) for buffer in buffers)
            return _fill(buffers, self.store.get_range(self._name(shard), offset, size))
        with self._files_lock:
            handle = self._files.pop(shard, None) or _Handle(self.folder / self._name(shard))
            self._files[shard] = handle
            old = self._files.popitem(last=False)[1] if len(self._files) > OPEN_SHARDS else None
        del old  # closed once no other thread reads from it
        return os.preadv(handle.number, buffers, offset)

    def close(self) -> None:
        """Close open shards; reading opens them again."""
        with self._files_lock:
            self._files.clear()

    def channel_statistics(self, max_crops: int = 2048) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (C,) float32 each, of the scaled pixels of this split.

        Taken from the manifest if it has them for all crops under this scaling; else measured on up to `max_crops` crops
        spread evenly over the split, so that held-out pixels are not used.

        Raises:
            ValueError: a channel is constant.
        """
        known = self.manifest["statistics"].get(scaling_key(*self.scaling))
        if self.split is None and known is not None:
            refuse_constant(self.channels, np.asarray(known["std"]), str(self.folder))
            return np.asarray(known["mean"], np.float32), np.asarray(known["std"], np.float32)
        items = np.unique(np.linspace(0, len(self) - 1, min(max_crops, len(self))).astype(np.int64))
        sums = np.zeros((2, len(self.channels)))
        for item in items:
            low, high = (value[0, :, None] for value in self.intensities([item]))
            pixels = self.read([item])[0].reshape(len(self.channels), -1)
            scaled = scale(pixels, low, high)
            sums += scaled.mean(1), (scaled**2).mean(1)
        mean, square = sums / len(items)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        where = f"{self.folder}" + (f", split {self.split}" if self.split else "")
        refuse_constant(self.channels, std, where)
        return mean.astype(np.float32), std.astype(np.float32)


def _fill(buffers: list, data: bytes) -> int:
    """Copy `data` into `buffers`, one after the other; returns the number of bytes."""
    place = 0
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        part = data[place : place + len(view)]
        view[: len(part)] = part
        place += len(view)
    return len(data)


class _Handle:
    """An open file that is closed when its last reader drops it."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        try:
            self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            folder = path.parents[1]
            raise FileNotFoundError(
                f"{path} is missing, though {folder}/manifest.json lists it: copy the dataset again"
            ) from error

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)
