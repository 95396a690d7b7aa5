"""Training on cached features and profile tables, with the same samplers and exact resume as for pixels."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.batch import Batch
from morphoclip.data.loading.datamodule import CellDataModule
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import EpochSampler
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.manifest import MANIFEST, read_manifest
from morphoclip.data.shards.parallel import make_ahead

FEATURES = "features.npy"
PROFILE = "profile"  # the one channel of a profile vector


class FeatureDataset(ShardDataset):
    """A frozen encoder's features of a dataset: the same index, fields and splits, with (C, D) features for crops.

    Args:
        folder, split: see `ShardDataset`; the folder was written by `FeatureWriter`.

    Attributes:
        shape: (C, D).
        features: (crops of the folder, C, D), memory-mapped.

    Raises:
        FileNotFoundError: the folder holds no features.
    """

    def _open(self) -> None:
        super()._open()
        path = self.folder / FEATURES
        if not path.is_file():
            raise FileNotFoundError(f"{self.folder} has no {FEATURES}: write features with `morphoclip features`")
        self.features = np.load(path, mmap_mode="r")
        self.shape = self.features.shape[1:]

    def read(self, items: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Features (n, C, D) float32."""
        rows = self.features[self.rows_of(items)]
        if out is None:
            return rows.astype(np.float32)
        out[...] = rows
        return out

    def channel_statistics(self, max_crops: int = 16_384) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (C, D) float32 each, over up to `max_crops` crops spread evenly over the split."""
        return _statistics(
            self.read(np.unique(np.linspace(0, len(self) - 1, min(max_crops, len(self))).astype(np.int64)))
        )


class TableDataset:
    """A profile table as a dataset whose samples are its rows, (1, D) each.

    Args:
        table: `Metadata_*` columns and features, one row per well.
        features: feature columns in order; None for all that are not metadata.

    Raises:
        ValueError: a feature is missing or not finite.
    """

    channels = (PROFILE,)
    pixel_size_um = None
    folder = Path("profile table")

    def __init__(self, table: pd.DataFrame, features: Sequence[str] | None = None) -> None:
        metadata, known = schema.split_columns(table)
        self.names = list(known if features is None else features)
        values = table[self.names].to_numpy(np.float32)
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"row {row} of the profile table has no finite {self.names[column]}: drop it or impute")
        self.features = values[:, None]
        self.shape = self.features.shape[1:]
        absent = {column: "" for column in (schema.SOURCE, schema.BATCH, schema.CONTROL_TYPE) if column not in metadata}
        self.fields = table[metadata].assign(**absent).reset_index(drop=True)
        self.present = np.arange(len(table))

    def __len__(self) -> int:
        return len(self.features)

    def rows_of(self, items: np.ndarray | Sequence[int]) -> np.ndarray:
        return np.asarray(items)

    fields_of = rows_of

    def read(self, items: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Profiles (n, 1, D) float32."""
        return np.take(self.features, items, axis=0, out=out, mode="clip" if out is not None else "raise")

    def channel_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (1, D) float32 each."""
        return _statistics(self.features)


def _statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0, dtype=np.float64).astype(np.float32), values.std(0, dtype=np.float64).astype(np.float32)


class FeatureMixture(Mixture):
    """A `Mixture` of feature datasets; its batches hold `features` (B, N, C, D)."""

    def __getitem__(self, items: np.ndarray) -> Batch:
        """The batch of bags `items` (B, N), or of single samples (B,) as bags of one."""
        bags = items[:, None] if np.ndim(items) == 1 else np.asarray(items)
        flat = bags.reshape(-1)
        features = np.empty((len(flat), *self.datasets[0].shape), np.float32)
        sample = np.empty(len(flat), np.int64)
        for number, places, local in self._by_dataset(flat):
            features[places] = self.datasets[number].read(local)
            sample[places] = self.datasets[number].rows_of(local)
        field = self.fields_of(flat)
        arrays = {"features": features, "sample": sample} | {k: v[field] for k, v in vars(self.codes).items()}
        tensors: dict[str, Any] = {k: torch.from_numpy(v.reshape(*bags.shape, *v.shape[1:])) for k, v in arrays.items()}
        for name in ("perturbation", "condition", "is_control"):  # all of a bag share them
            tensors[name] = tensors[name][:, 0].clone()
        return Batch(**tensors, mask=torch.ones(bags.shape, dtype=torch.bool))


class FeatureLoader:
    """The batches of a sampler from mapped memory, made ahead by one thread; epochs and state as in `loader.Loader`.

    Args:
        mixture: source of the features.
        sampler: gives the rows of each batch.
        prefetch: batches made ahead; with 0 a batch is made when it is needed.
    """

    def __init__(self, mixture: Mixture, sampler: EpochSampler, prefetch: int = 0) -> None:
        self.mixture, self.sampler, self.prefetch = mixture, sampler, prefetch

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self._count(iter(self.sampler))  # not a generator: the epoch must be fixed on this call

    def _count(self, chosen: Iterator[np.ndarray]) -> Iterator[Batch]:
        batches = map(self.mixture.__getitem__, chosen)
        for batch in make_ahead(batches, self.prefetch) if self.prefetch else batches:
            self.sampler.ready += 1
            yield batch.pin_memory() if torch.cuda.is_available() else batch

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)


class FeatureDataModule(CellDataModule):
    """`CellDataModule` on folders of cached features; arguments as there.

    Options of pixels have no effect; with `num_workers` above 0, one thread makes batches ahead.
    """

    def setup(self, stage: str | None = None) -> None:
        for split in {self.split, self.val_split or self.split}:
            if split not in self._mixtures:
                self._mixtures[split] = FeatureMixture(
                    [FeatureDataset(root, split) for root in self.roots], self.weights
                )

    def _make_loader(self, mixture: Mixture, sampler: EpochSampler) -> FeatureLoader:
        return FeatureLoader(mixture, sampler, self.prefetch if self.num_workers else 0)


class TableDataModule(FeatureDataModule):
    """`FeatureDataModule` on all rows of a profile table in memory."""

    def __init__(self, table: pd.DataFrame, batch_size: int | None = None, sampler: str = "bags", **options) -> None:
        super().__init__([{"root": "profile table"}], batch_size, sampler, **options)
        dataset = TableDataset(table)
        self.names = dataset.names  # of the features
        # A TableDataset has all that a mixture of features uses
        self._mixtures = {None: FeatureMixture([dataset])}  # type: ignore[list-item]


class FeatureWriter:
    """Writes a folder of features with a copy of the dataset's index, fields, splits and manifest.

    Rows may be written in any order; the folder gets its final name once all are written. Use it as a context manager.

    Args:
        folder: folder to make.
        dataset: dataset of the crops, opened without a split.
        shape: (C, D).
        made_by: description of the encoder (plain JSON), stored in the manifest.
        dtype: type on disk; float16 halves the size. Features are read as float32.

    Raises:
        FileExistsError: the folder exists.
        ValueError: `dataset` was opened with a split.
    """

    def __init__(
        self, folder: str | Path, dataset: ShardDataset, shape: Sequence[int], made_by: dict, dtype: str = "float16"
    ) -> None:
        self.folder, self.dataset, self.made_by = Path(folder), dataset, made_by
        if self.folder.exists():
            raise FileExistsError(f"{self.folder} exists and is never overwritten: remove it or name another folder")
        if dataset.split is not None:
            raise ValueError("features are written for all crops of a dataset: open it without a split")
        self.partial = self.folder.with_name(f"{self.folder.name}.partial-{os.getpid()}")
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        self.features = np.lib.format.open_memmap(
            self.partial / FEATURES, "w+", dtype=dtype, shape=(len(dataset), *shape)
        )
        self.written = np.zeros(len(dataset), bool)

    def write(self, rows: np.ndarray, features: np.ndarray) -> None:
        """Features (n, C, D) of the crops in `rows` of the index."""
        self.features[rows] = features
        self.written[rows] = True

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is not None or not self.written.all():
            shutil.rmtree(self.partial, ignore_errors=True)
            if kind is None:
                raise ValueError(f"{(~self.written).sum()} of {len(self.written)} crops got no features")
            return
        self.features.flush()
        for name in ("index.arrow", "fields.parquet"):
            shutil.copyfile(self.dataset.folder / name, self.partial / name)
        if (self.dataset.folder / "splits").is_dir():
            shutil.copytree(self.dataset.folder / "splits", self.partial / "splits")
        manifest = read_manifest(self.dataset.folder)
        manifest["features"] = {
            "source": str(self.dataset.folder),
            "shape": list(self.features.shape[1:]),
            **self.made_by,
        }
        (self.partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        os.rename(self.partial, self.folder)
