"""Writing a dataset folder: plain WebDataset tars, their index, the fields and the manifest."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.shards.codecs import crc32, get_codec
from morphoclip.data.shards.field_table import FieldTable
from morphoclip.data.shards.index import INDEX_COLUMNS, write_index
from morphoclip.data.shards.intensities import percentile_column
from morphoclip.data.shards.manifest import FORMAT_VERSION, HIGH_PERCENTILE, LOW_PERCENTILE, MANIFEST, scaling_key
from morphoclip.data.shards.statistics import channel_sums, summarise
from morphoclip.data.shards.working_folder import claim, room_for


@dataclass(frozen=True)
class EncodedCrop:
    """An encoded crop: its bytes, and its `channel_sums` (C, 4) for the statistics."""

    data: bytes
    sums: np.ndarray


def encode_crop(image: np.ndarray, field_row: Mapping, channels: Sequence[str], codec: str) -> EncodedCrop:
    """Encode a (C, H, W) uint16 crop of the field described by `field_row`; may run in a worker process."""
    low = np.array([field_row[percentile_column(LOW_PERCENTILE, channel)] for channel in channels])
    high = np.array([field_row[percentile_column(HIGH_PERCENTILE, channel)] for channel in channels])
    sums = channel_sums(image, low, high)
    return EncodedCrop(get_codec(codec).encode(np.ascontiguousarray(image)), sums)


class ShardWriter:
    """Writes a dataset folder crop by crop; use it as a context manager.

    Everything is written to `<folder>.partial`, the manifest last, and renamed when the writer closes. An exception
    removes it, so the final name never holds a partial dataset. The same calls give the same bytes.

    Args:
        folder: the dataset to make. It must not exist, or be an empty folder.
        channels: names in the order of the crops' first axis.
        codec: `blosc` (lossless zstd + shuffle), `raw` (npy), `sqrt` (near-lossless), `png16` or `tiff`; see docs/data.md.
        crop_size: pixels; taken from the first crop if not given.
        pixel_size_um: size of a stored pixel in µm; runs that mix datasets need it.
        shard_bytes: a shard is closed once it holds this many bytes.
        made_by: how the dataset was made (plain JSON), stored in the manifest.

    Raises:
        FileExistsError: `folder` exists, or another process is writing it.
        OSError: the disk is full, from `add`, `append` or `close`.
    """

    def __init__(
        self,
        folder: str | Path,
        channels: Sequence[str] = schema.CHANNELS,
        codec: str = "blosc",
        *,
        crop_size: int | None = None,
        pixel_size_um: float | None = None,
        shard_bytes: int = 2**28,
        made_by: Mapping | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.partial = self.folder.with_name(self.folder.name + ".partial")
        self.channels = tuple(channels)
        self.codec = get_codec(codec)
        self.crop_size = crop_size
        self.pixel_size_um = pixel_size_um
        self.shard_bytes = shard_bytes
        self.made_by = dict(made_by or {})
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise FileExistsError(f"{self.folder} exists and is never overwritten: remove it or name another folder")
        self._lock: int | None = claim(self.partial)
        (self.partial / "shards").mkdir()
        self._tar: tarfile.TarFile | None = None
        self._shards: list[dict] = []
        self._index: dict[str, array] = {name: array(code) for name, code, _ in INDEX_COLUMNS}
        self._fields = FieldTable(self.channels)
        self._sums = np.zeros((len(self.channels), 4))

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __len__(self) -> int:
        return len(self._index["shard"])

    def add(self, image: np.ndarray, field_row: Mapping, y: int, x: int, foreground: float = 1.0) -> None:
        """Add one crop.

        Args:
            image: (C, crop_size, crop_size) uint16, as acquired.
            field_row: the crop's field: Metadata_ columns (at least plate and well) and its percentiles from
                `intensities.describe_field`. Without percentiles those of the field's first crop are used, which is
                correct if the crop is the whole field.
            y, x: the crop's top-left corner in the field, in stored pixels.
            foreground: fraction of its DNA pixels above the field's threshold; 1 if not measured.

        Raises:
            ValueError: shape, dtype or columns differ from earlier crops, plate or well is missing, or a field is
                described twice with different values.
        """
        self._check(image)
        field, description = self._fields.enter(field_row, image)
        self.append(encode_crop(image, description, self.channels, self.codec.name), field, y, x, foreground)

    def add_field(self, field_row: Mapping) -> int:
        """Add a field (with its percentiles) and return its row in fields.parquet, for `append`."""
        return self._fields.enter(field_row)[0]

    def append(self, crop: EncodedCrop, field: int, y: int, x: int, foreground: float) -> None:
        """Add a crop encoded by `encode_crop`, of the field in row `field`."""
        with room_for(self.folder):
            self._append(crop, field, y, x, foreground)

    def _append(self, crop: EncodedCrop, field: int, y: int, x: int, foreground: float) -> None:
        if self._tar is None:
            name = f"{len(self._shards):06d}.tar"
            self._tar = tarfile.open(self.partial / "shards" / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._shards.append({"name": name, "samples": 0, "nbytes": 0})
        key = f"{len(self):09d}"  # the row in the index; without dots, which webdataset would read as an extension
        entry = {
            "shard": len(self._shards) - 1,
            "offset": _tar_add(self._tar, f"{key}.{self.codec.extension}", crop.data),
            "nbytes": len(crop.data),
            "crc32": crc32(crop.data),
            "field": field,
            "y": int(y),
            "x": int(x),
            "foreground": foreground,
        }
        for name, value in entry.items():
            self._index[name].append(value)
        label = self._fields.metadata(field) | {
            "field": field,
            "y": int(y),
            "x": int(x),
            "shape": [len(self.channels), self.crop_size, self.crop_size],
            "dtype": "uint16",
            "crc32": entry["crc32"],
        }
        _tar_add(self._tar, f"{key}.json", json.dumps(label).encode())
        self._shards[-1]["samples"] += 1
        self._sums += crop.sums
        if self._tar.offset >= self.shard_bytes:
            self._close_shard()

    def deviations(self) -> np.ndarray:
        """Standard deviation (C,) of the raw pixels written so far."""
        found = summarise(self._sums, len(self) * (self.crop_size or 0) ** 2, "scaled")
        return np.asarray(found["raw"]["std"])

    def close(self) -> None:
        """Write index, fields and manifest, then rename the folder. Closing again does nothing.

        Raises:
            ValueError: no crop was added.
        """
        if self._lock is None:
            return
        try:
            if len(self) == 0:
                raise ValueError(f"no crops were written to {self.folder}: a dataset needs at least one")
            with room_for(self.folder):
                self._close_shard()
                write_index(self.partial / "index.arrow", self._index)
                fields = self._fields.frame()
                fields.to_parquet(self.partial / "fields.parquet", compression="zstd", index=False)
                (self.partial / MANIFEST).write_text(json.dumps(self._manifest(fields), indent=2) + "\n")
                os.rename(self.partial, self.folder)
        except BaseException:
            self.abort()
            raise
        self._unlock()

    def abort(self) -> None:
        """Remove everything written so far."""
        if self._lock is None:
            return
        if self._tar is not None:
            with suppress(OSError):  # on a full disk the buffered rest cannot be written
                self._tar.fileobj.close()
            self._tar = None
        shutil.rmtree(self.partial)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def _check(self, image: np.ndarray) -> None:
        if self.crop_size is None and image.ndim == 3:
            self.crop_size = image.shape[-1]
        expected = (len(self.channels), self.crop_size, self.crop_size)
        if image.shape != expected or image.dtype != np.uint16:
            raise ValueError(f"crop is {image.shape} {image.dtype}, but this dataset holds {expected} uint16")

    def _close_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        self._shards[-1]["nbytes"] = (self.partial / "shards" / self._shards[-1]["name"]).stat().st_size

    def _manifest(self, fields: pd.DataFrame) -> dict:
        scaled = scaling_key("field", LOW_PERCENTILE, HIGH_PERCENTILE)
        return {
            "format_version": FORMAT_VERSION,
            "channels": list(self.channels),
            "dtype": "uint16",
            "codec": self.codec.name,
            "crop_size": self.crop_size,
            "pixel_size_um": self.pixel_size_um,
            "statistics": summarise(self._sums, len(self) * (self.crop_size or 0) ** 2, scaled),
            "counts": {
                "samples": len(self),
                "fields": len(fields),
                "wells": len(fields[[schema.PLATE, schema.WELL]].drop_duplicates()),
                "plates": int(fields[schema.PLATE].nunique()),
                "perturbations": int(fields[schema.PERTURBATION].nunique()),
            },
            "shards": self._shards,
            "made_by": self.made_by,
        }


def _tar_add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append a member with fixed owner and time, and return the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    start = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(member, BytesIO(data))
    return start
