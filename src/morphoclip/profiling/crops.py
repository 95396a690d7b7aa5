"""The crops to profile, well by well, and how a dataset folder gives them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch

from morphoclip.data import schema
from morphoclip.data.dataset import ShardDataset
from morphoclip.profiling.aggregation import enough_foreground

CROPPING = ("mode", "bin", "pixel_size_um", "otsu_factor", "min_foreground", "crops_per_field", "seed")
SCALING = ("scale_by", "low_percentile", "high_percentile")


@dataclass(frozen=True)
class Crops:
    """n crops, those of a field side by side and the fields of a well side by side.

    Attributes:
        images: (n, C, H, W) uint16.
        low, high: (n, C) float32, the intensities that scale to 0 and 1.
        field: (n,) int64, row of the source's `fields`.
        y, x: (n,) int, top-left corner in the field, pixels.
        lacking: (n,) bool, below the foreground rule but the best its well has.
    """

    images: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    field: np.ndarray
    y: np.ndarray
    x: np.ndarray
    lacking: np.ndarray

    def __len__(self) -> int:
        return len(self.field)

    def split(self, size: int) -> Iterator[Crops]:
        """Parts of at most `size` crops, in order."""
        for start in range(0, len(self), size):
            yield Crops(**{f.name: getattr(self, f.name)[start : start + size] for f in fields(self)})


def well_codes(table: pd.DataFrame) -> np.ndarray:
    """A number for each row's well, (N,) int64, in sorted order of source, batch, plate and well."""
    return (
        table.groupby([c for c in schema.WELL_KEY if c in table], sort=True, dropna=False).ngroup().to_numpy(np.int64)
    )


class DatasetCrops:
    """The crops of a `ShardDataset`, those with too little foreground left out; iterates over `Crops` of batch_size.

    Args:
        dataset: its split and intensity scaling are used as they are.
        batch_size: crops read at a time.
        min_foreground: None takes the rule the dataset was made with (where none is on record, all crops pass).
        num_workers: processes that read ahead.
    """

    def __init__(
        self, dataset: ShardDataset, batch_size: int, min_foreground: float | None = None, num_workers: int = 0
    ) -> None:
        self.reader = _Reader(dataset, batch_size, min_foreground)
        self.num_workers = num_workers
        self.fields = dataset.fields
        self.channels = dataset.channels
        self.pixel_size_um = dataset.pixel_size_um
        self.scaling = dataset.scaling
        self.total = len(self.reader.items)

    def __iter__(self) -> Iterator[Crops]:
        yield from torch.utils.data.DataLoader(self.reader, batch_size=None, num_workers=self.num_workers)


class _Reader(torch.utils.data.Dataset):
    """Item k is the k-th batch of crops."""

    def __init__(self, dataset: ShardDataset, batch_size: int, min_foreground: float | None) -> None:
        if min_foreground is None:
            min_foreground = dataset.manifest["made_by"].get("arguments", {}).get("min_foreground", 0.0)
        self.dataset = dataset
        self.batch_size = batch_size
        field = dataset.fields_of(np.arange(len(dataset)))
        well = well_codes(dataset.fields)[field]
        kept, lacking = enough_foreground(dataset.index["foreground"][dataset.rows], well, min_foreground)
        order = np.lexsort((field, well))
        self.items = order[kept[order]]
        self.lacking = lacking[self.items]

    def __len__(self) -> int:
        return -(-len(self.items) // self.batch_size)

    def __getitem__(self, k: int) -> Crops:
        part = slice(k * self.batch_size, (k + 1) * self.batch_size)
        items = self.items[part]
        low, high = self.dataset.intensities(items)
        rows = self.dataset.rows[items]
        return Crops(
            images=torch.from_numpy(self.dataset.read(items)),
            low=torch.from_numpy(low),
            high=torch.from_numpy(high),
            field=self.dataset.fields_of(items).astype(np.int64),
            y=self.dataset.index["y"][rows],
            x=self.dataset.index["x"][rows],
            lacking=self.lacking[part],
        )
