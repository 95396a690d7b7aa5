"""Several datasets as one, with integer codes shared by all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.batch import Batch
from morphoclip.data.metadata.codes import FieldCodes, code_fields
from morphoclip.data.metadata.perturbations import PerturbationTable
from morphoclip.data.shards.dataset import SampleError, ShardDataset
from morphoclip.data.shards.locks import ProcessLock

ON_BAD_SAMPLE = ("error", "skip")
log = logging.getLogger(__name__)


class Mixture:
    """One or more `ShardDataset`s concatenated and read batch by batch; a perturbation has the same code in all.

    Args:
        datasets: with the same channels in the same order, crop size and pixel size.
        weights: how often a crop of each dataset is shown, relative to the others.
        on_bad_sample: `error`, or `skip`: replace the sample by another crop of the bag (or of the batch if the bag has
            none), log it and count it.

    Attributes:
        skipped: number of samples skipped so far.

    Raises:
        ValueError: channels, crop sizes or pixel sizes differ, a weight is not positive, or `on_bad_sample` is unknown.
    """

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        weights: Sequence[float] | None = None,
        on_bad_sample: str = "error",
    ) -> None:
        if on_bad_sample not in ON_BAD_SAMPLE:
            raise ValueError(f"on_bad_sample={on_bad_sample!r}: use error or skip")
        self.on_bad_sample, self.skipped = on_bad_sample, 0
        self._counting = ProcessLock()
        self.datasets = tuple(datasets)
        self.weights = np.ones(len(datasets)) if weights is None else np.asarray(weights, float)
        first = self.datasets[0]
        for other in self.datasets[1:]:
            for what in ("channels", "shape", "pixel_size_um"):
                if getattr(other, what) != getattr(first, what):
                    raise ValueError(
                        f"{other.folder} has {what} {getattr(other, what)}, {first.folder} has {getattr(first, what)}: "
                        "datasets of one run must match; prepare one of them again"
                    )
        if len(self.weights) != len(self.datasets) or not (self.weights > 0).all():
            raise ValueError(f"weights {self.weights.tolist()}: give one positive number per dataset")
        self.sizes = np.array([len(dataset) for dataset in self.datasets])
        self._starts = np.cumsum(self.sizes) - self.sizes
        counts = np.array([len(dataset.fields) for dataset in self.datasets])
        self._field_starts = np.cumsum(counts) - counts

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @cached_property
    def fields(self) -> pd.DataFrame:
        """The fields of all datasets, one after another."""
        return pd.concat([dataset.fields for dataset in self.datasets], ignore_index=True)

    @cached_property
    def present(self) -> np.ndarray:
        """The rows of `fields` that have crops in the split."""
        return np.concatenate([s + d.present for s, d in zip(self._field_starts, self.datasets, strict=True)])

    @cached_property
    def table(self) -> PerturbationTable:
        """The conditions of the fields that have crops in the split."""
        return PerturbationTable.from_frame(self.fields.iloc[self.present])

    @cached_property
    def codes(self) -> FieldCodes:
        """Codes of the rows of `fields`."""
        return code_fields(self.fields, self.present, self.table)

    def fields_of(self, items: np.ndarray) -> np.ndarray:
        """The row of `fields` of each crop of `items` (n,)."""
        fields = np.empty(len(items), np.int64)
        for number, places, local in self._by_dataset(items):
            fields[places] = self._field_starts[number] + self.datasets[number].fields_of(local)
        return fields

    def all_fields(self) -> np.ndarray:
        """The row of `fields` of every crop, (len,) int32."""
        parts = zip(self._field_starts, self.datasets, strict=True)
        return np.concatenate(
            [np.add(start, dataset.fields_of(np.arange(len(dataset))), dtype=np.int32) for start, dataset in parts]
        )

    @cached_property
    def named(self) -> np.ndarray:
        """bool per row of `fields`: it has crops in the split, and its well has a perturbation (is not empty)."""
        named = self.table.frame[schema.PERTURBATION].ne("").to_numpy()
        return (self.codes.condition >= 0) & named[self.codes.condition]

    def _by_dataset(self, items: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield (dataset number, positions in `items`, rows within that dataset)."""
        which = np.searchsorted(self._starts, items, side="right") - 1
        for number in range(len(self.datasets)):
            places = np.flatnonzero(which == number)
            yield number, places, items[places] - self._starts[number]

    def __getitem__(self, items: np.ndarray) -> Batch:
        """The batch of crops `items` (B,) or of bags (B, N).

        Raises:
            SampleError, OSError: a sample cannot be read, under `on_bad_sample="error"`.
        """
        images = np.empty((np.size(items), *self.datasets[0].shape), np.uint16)
        bad = self.read(np.reshape(items, -1), images)
        return self.batch(items, images, bad)

    def read(self, items: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Read crops `items` (n,) into `out` (n, C, H, W) uint16; returns bool (n,), True for skipped ones. Thread-safe."""
        bad = np.zeros(len(items), bool)
        for number, places, local in self._by_dataset(items):
            dataset = self.datasets[number]
            for place, row in zip(places, dataset.rows_of(local), strict=True):
                bad[place] = not self.attempt(partial(dataset.read_row, int(row), out[place]))
        return bad

    def attempt(self, read: Callable[[], None]) -> bool:
        """Call `read`; False for a bad sample that is skipped and counted. Raises under `on_bad_sample="error"`."""
        try:
            read()
        except (SampleError, OSError) as error:
            if self.on_bad_sample == "error":
                raise
            with self._counting:
                self.skipped += 1
            log.warning("skipped (%d so far): %s", self.skipped, error)
            return False
        return True

    def batch(self, items: np.ndarray, images: np.ndarray, bad: np.ndarray) -> Batch:
        """The batch of `items` (B,) or bags (B, N), whose pixels `read` wrote to `images` (B or B·N, C, H, W)."""
        shape, flat = np.shape(items), np.reshape(items, -1)
        if bad.any():
            donors = _donors(bad.reshape(shape))
            images[bad] = images[donors[bad]]
            flat = flat[donors]
        low, high = np.empty((2, len(flat), len(images[0])), np.float32)
        sample = np.empty(len(flat), np.int64)
        for number, places, local in self._by_dataset(flat):
            dataset = self.datasets[number]
            low[places], high[places] = dataset.intensities(local)
            sample[places] = dataset.rows_of(local)
        field = self.fields_of(flat)
        codes = {name: values[field] for name, values in vars(self.codes).items()}
        arrays = {"images": images, "low": low, "high": high, "sample": sample, **codes}
        tensors: dict[str, Any] = {
            name: torch.from_numpy(v.reshape(*shape, *v.shape[1:])) for name, v in arrays.items()
        }
        if len(shape) == 2:  # a bag has one condition, and all its rows are crops
            for name in ("perturbation", "condition", "is_control"):
                tensors[name] = tensors[name][:, 0].clone()
            tensors["mask"] = torch.ones(shape, dtype=torch.bool)
        return Batch(**tensors)


def _donors(bad: np.ndarray) -> np.ndarray:
    """For each item of a flattened batch, the item whose crop replaces it: itself if it was read.

    A bad crop is replaced by the next good one of its bag, and a bag without any by the next bag that has some.
    """
    rows = bad.reshape(len(bad), -1)
    places = np.arange(rows.size).reshape(rows.shape)
    if not (~rows).any():
        raise SampleError(
            "every sample of a batch is damaged: copy the dataset again (`morphoclip data verify` lists them)"
        )
    for row in np.flatnonzero(rows.any(axis=1)):
        for other in (row + np.arange(len(rows))) % len(rows):
            good = np.flatnonzero(~rows[other])
            if len(good):
                wanted = good[np.searchsorted(good, np.arange(rows.shape[1])) % len(good)]
                places[row] = other * rows.shape[1] + wanted
                break
    return places.reshape(-1)
