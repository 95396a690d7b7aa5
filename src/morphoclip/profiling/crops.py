"""The crops to profile, well by well, from a dataset folder."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.data.loading.loader import Loader
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import WHOLE, EpochSampler, part_of
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.profiling.aggregation import enough_foreground


@dataclass(frozen=True)
class Crops:
    """n crops, sorted by well and field.

    Attributes:
        images: (n, C, H, W) uint16.
        low, high: (n, C) float32, the intensities that scale to 0 and 1.
        field: (n,) int64, row of the source's `fields`.
        y, x: (n,) int, top-left corner in the field, pixels.
        lacking: (n,) bool, crops below the foreground minimum that are the best of their well.
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
    """Well codes of the rows, (N,) int64, in sorted order of source, batch, plate and well."""
    return (
        table.groupby([c for c in schema.WELL_KEY if c in table], sort=True, dropna=False).ngroup().to_numpy(np.int64)
    )


def plate_codes(table: pd.DataFrame) -> np.ndarray:
    """Plate codes of the rows, (N,) int64, in sorted order of source, batch and plate, so in the order of `well_codes`."""
    columns = [c for c in schema.PLATE_KEY if c in table]
    return table.groupby(columns, sort=True, dropna=False).ngroup().to_numpy(np.int64)


class DatasetCrops:
    """The crops of a `ShardDataset` with enough foreground; iterates over `Crops` of one plate and at most batch_size.

    Plates are not mixed in a batch, so that a plate's features do not depend on the other plates, to the last bit.

    Args:
        dataset: the dataset, with its split and intensity scaling.
        batch_size: crops read at a time.
        min_foreground: None for the minimum the dataset was made with (if it is not recorded, all crops pass).
        num_workers: threads that read and decode ahead.

    Attributes:
        fields: table of fields. well, plate: codes of its rows, (F,) int64.
        visited: rows of `fields` that have crops to profile, sorted.
        crop_size: pixels. total: number of crops.
    """

    def __init__(
        self, dataset: ShardDataset, batch_size: int, min_foreground: float | None = None, num_workers: int = 0
    ) -> None:
        if min_foreground is None:
            min_foreground = dataset.manifest["made_by"].get("arguments", {}).get("min_foreground", 0.0)
        self.dataset, self.batch_size, self.num_workers = dataset, batch_size, num_workers
        self.fields = dataset.fields
        self.channels = dataset.channels
        self.pixel_size_um = dataset.pixel_size_um
        self.scaling = dataset.scaling
        self.crop_size = dataset.shape[-1]
        self.well, self.plate = well_codes(self.fields), plate_codes(self.fields)
        field = dataset.fields_of(np.arange(len(dataset)))
        well = self.well[field]
        kept, lacking = enough_foreground(dataset.index["foreground"][dataset.rows], well, min_foreground)
        order = np.lexsort((field, well))
        self._keep(order[kept[order]], lacking[order[kept[order]]])

    def _keep(self, items: np.ndarray, lacking: np.ndarray) -> None:
        self.items, self.lacking, self.total = items, lacking, len(items)
        self.visited = np.unique(self.dataset.fields_of(items)).astype(np.int64)

    def only(self, fields: np.ndarray) -> DatasetCrops:
        """The crops of some fields; `fields` is bool, (F,)."""
        part = copy(self)
        chosen = fields[self.dataset.fields_of(self.items)]
        part._keep(self.items[chosen], self.lacking[chosen])
        return part

    def crops_per_plate(self) -> np.ndarray:
        """Number of crops by plate code."""
        return np.bincount(self.plate[self.dataset.fields_of(self.items)], minlength=self.plate.max() + 1)

    def __iter__(self) -> Iterator[Crops]:
        plan = _InOrder(self.items, self.plate[self.dataset.fields_of(self.items)], self.batch_size)
        loader = Loader(Mixture([self.dataset]), EpochSampler(plan), self.num_workers)
        for part, batch in zip(plan.parts, loader, strict=True):
            rows = batch.tensor("sample").numpy()
            yield Crops(
                images=batch.tensor("images"),
                low=batch.tensor("low"),
                high=batch.tensor("high"),
                field=self.dataset.index["field"][rows].astype(np.int64),
                y=self.dataset.index["y"][rows],
                x=self.dataset.index["x"][rows],
                lacking=self.lacking[part],
            )


class _InOrder:
    """A plan of crops in the given order; batches end where the group changes, so they may be short."""

    def __init__(self, items: np.ndarray, group: np.ndarray, batch_size: int) -> None:
        ends = [*(np.flatnonzero(np.diff(group)) + 1).tolist(), len(items)] if len(items) else []
        self.parts = [
            slice(start, min(start + batch_size, end))
            for first, end in zip([0, *ends[:-1]], ends, strict=True)
            for start in range(first, end, batch_size)
        ]
        self.items, self.steps = items, len(self.parts)

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        items = self.items[self.parts[step]]
        return items[part_of(len(items), part)]
