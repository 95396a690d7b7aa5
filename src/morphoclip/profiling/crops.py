"""Where the crops to profile come from, well by well: a dataset folder, or fields of view cut on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch

from morphoclip.data import schema
from morphoclip.data.dataset import ShardDataset
from morphoclip.profiling.aggregation import enough_foreground

WELL_KEY = [schema.SOURCE, schema.BATCH, schema.PLATE, schema.WELL]


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
    return table.groupby([c for c in WELL_KEY if c in table], sort=True, dropna=False).ngroup().to_numpy(np.int64)


class DatasetCrops(torch.utils.data.Dataset):
    """Crops of a `ShardDataset` in `batch_size`s, those below `min_foreground` left out; item k is the k-th batch."""

    def __init__(self, dataset: ShardDataset, batch_size: int, min_foreground: float) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.fields = dataset.fields
        self.channels = dataset.channels
        self.pixel_size_um = dataset.pixel_size_um
        self.scaling = dataset.scaling
        field = dataset.fields_of(np.arange(len(dataset)))
        well = well_codes(dataset.fields)[field]
        share = dataset.index["foreground"][dataset.rows]
        kept, lacking = enough_foreground(share, well, min_foreground)
        order = np.lexsort((field, well))
        self.items = order[kept[order]]
        self.lacking = lacking[self.items]

    def __len__(self) -> int:
        return -(-len(self.items) // self.batch_size)

    @property
    def crop_count(self) -> int:
        return len(self.items)

    def __getitem__(self, k: int) -> Crops:
        if not 0 <= k < len(self):
            raise IndexError(k)
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
