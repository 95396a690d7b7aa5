"""Training on features (cached ones, or those of profile tables), with the same samplers and exact resume as for pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from morphoclip.batch import Batch
from morphoclip.data.loading.datamodule import CellDataModule
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import EpochSampler
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.manifest import read_manifest
from morphoclip.data.shards.parallel import make_ahead
from morphoclip.data.shards.remote import is_remote
from morphoclip.files import sha256_of_file

FEATURES = "features.npy"
PROFILE = "profile"  # the one channel of a profile vector
CHUNK = 4096  # samples checked at a time


class FeatureDataset(ShardDataset):
    """Features (C, D) in place of images: a frozen encoder's of each crop, or the wells of profile tables.

    Args:
        folder, split: see `ShardDataset`; the folder was written by `profiling`.

    Attributes:
        shape: (C, D).
        features: (samples of the folder, C, D), memory-mapped.
        names: of the D features of a profile table; None for an encoder's features.
        unit: `well` for a profile table, else `crop`.

    Raises:
        FileNotFoundError: the folder holds no features.
    """

    def _open_samples(self) -> None:
        path = self.folder / FEATURES
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.folder} has no {FEATURES}: write features with `morphoclip features` or `morphoclip data import`"
            )
        self.features = np.load(path, mmap_mode="r")
        self.shape = self.features.shape[1:]
        names = self.manifest["features"].get("names")
        self.names = None if names is None else tuple(names)
        self.unit = "crop" if names is None else "well"
        fields = (self.manifest["counts"]["fields"], len(self.channels))
        self._low, self._high = (np.broadcast_to(np.float32(bound), fields) for bound in (0, 1))

    def read(self, items: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Features (n, C, D) float32."""
        rows = self.features[self.rows_of(items)]
        if out is None:
            return rows.astype(np.float32)
        out[...] = rows
        return out

    def channel_statistics(self, max_crops: int = 16_384) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (C, D) float32 each, over up to `max_crops` samples spread evenly over the split."""
        values = self.read(np.unique(np.linspace(0, len(self) - 1, min(max_crops, len(self))).astype(np.int64)))
        mean, deviation = values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
        return mean.astype(np.float32), deviation.astype(np.float32)

    def problems(self) -> list[str]:
        """Contradictions between the files of the folder, and samples that are not finite."""
        found, counts = [], {"index.arrow": len(self.index["field"]), FEATURES: len(self.features)}
        found += [
            f"{name} has {count} rows, the manifest {self.manifest['counts']['samples']}"
            for name, count in counts.items()
            if count != self.manifest["counts"]["samples"]
        ]
        if self.manifest["features"].get("sha256") not in (None, sha256_of_file(self.folder / FEATURES)):
            found.append(f"{self.folder / FEATURES} fails its checksum: it was changed or damaged after it was written")
        for start in range(0, len(self.features), CHUNK):
            rows = np.isfinite(self.features[start : start + CHUNK]).all(axis=(1, 2))
            found += [f"{self.unit} {start + row} has features that are not finite" for row in np.flatnonzero(~rows)]
        return found


def open_folder(folder: str | Path, split: str | None = None, *scaling: Any) -> ShardDataset:
    """A dataset folder as what it holds: a `FeatureDataset`, or a `ShardDataset` of crops scaled by `scaling`."""
    features = not is_remote(str(folder)) and "features" in read_manifest(folder)
    return FeatureDataset(folder, split) if features else ShardDataset(folder, split, *scaling)


def different_names(known: Sequence[str], given: Sequence[str]) -> str:
    """How the features of two profile tables differ: counts and examples, or their order."""
    parts = []
    for first, second, what in ((known, given, "missing"), (given, known, "surplus")):
        odd = [name for name in first if name not in set(second)]
        parts += [f"{len(odd)} {what} (e.g. {', '.join(odd[:3])})"] if odd else []
    return ", ".join(parts) or "the same in another order"


class FeatureMixture(Mixture):
    """A `Mixture` of feature datasets; its batches hold `features` (B, N, C, D).

    Raises:
        ValueError: profile tables with different features, or as `Mixture`.
    """

    def __init__(self, datasets: Sequence[FeatureDataset], weights: Sequence[float] | None = None) -> None:
        first = datasets[0]
        for other in datasets[1:]:
            if first.names is not None and other.names is not None and first.names != other.names:
                raise ValueError(
                    f"{other.folder} has other features than {first.folder}: {different_names(first.names, other.names)}. "
                    "Import both with the same --features, e.g. a file of the names that both tables have"
                )
        super().__init__(datasets, weights)

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
    """`CellDataModule` on folders of features; arguments as there.

    Options of pixels have no effect; with `num_workers` above 0, one thread makes batches ahead.
    """

    def _open(self, split: str | None) -> FeatureMixture:
        return FeatureMixture([FeatureDataset(root, split) for root in self.roots], self.weights)

    def _make_loader(self, mixture: Mixture, sampler: EpochSampler) -> FeatureLoader:
        return FeatureLoader(mixture, sampler, self.prefetch if self.num_workers else 0)
