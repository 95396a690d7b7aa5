"""Batches for a Lightning run: datasets, sampler and loader, resumable in the middle of an epoch (DESIGN §3.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from morphoclip.batch import Batch
from morphoclip.data.balanced import Balanced, Wells
from morphoclip.data.dataset import ShardDataset
from morphoclip.data.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
from morphoclip.data.mixture import Mixture
from morphoclip.data.pairs import Pairs
from morphoclip.data.perturbations import PerturbationTable
from morphoclip.data.samplers import Bags, EpochSampler, Sequential, Uniform
from morphoclip.distributed import rank, world_size

SAMPLERS = {"uniform": Uniform, "bags": Bags, "pairs": Pairs, "wells": Wells, "balanced": Balanced}


class ResumableLoader(DataLoader):
    """A DataLoader that counts the batches it hands out, so that its state is exact whatever the workers fetched ahead.

    `len` is always the full epoch; after `load_state_dict` the first iteration yields the rest of it. With a plain
    loop every iteration is the next epoch.
    """

    def __iter__(self) -> Iterator[Batch]:
        return self._count(super().__iter__())  # not a generator itself: workers start now, at the current state

    def _count(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.sampler.ready += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.sampler.load_state_dict(state)


class CellDataModule(pl.LightningDataModule):
    """Training and validation batches of one dataset folder or a weighted mixture of several.

    Use it with `Trainer(use_distributed_sampler=False)`: batches are drawn for all ranks and sliced by rank.

    Args:
        datasets: `{"root": folder, "weight": 1.0}` each; weights say how often a dataset's crops are shown.
        batch_size: crops, bags or pairs a rank and step.
        sampler: `uniform`, every crop once an epoch; `bags`, N crops of one perturbation across plates and wells;
            `pairs`, two wells of one perturbation; `wells`, at most k wells of one perturbation; or `balanced`, every
            class equally often.
        num_workers: loader processes; 0 reads in the training process.
        sampler_options: keywords of the sampler: see `samplers.Bags`, `pairs.Pairs`, `balanced.Wells` and
            `balanced.Balanced`.
        split: the split to train on; None for all crops, as a dataset has them before a split is written.
        val_split: the split to validate on, crop by crop in order; None for no validation.
        scale_by, low_percentile, high_percentile: intensity scaling, see `ShardDataset`.
        seed: of every draw.

    Attributes:
        mixture: what training sees, after `setup`; table: its `PerturbationTable`; channels: names in order.
    """

    def __init__(
        self,
        datasets: Sequence[Mapping],
        batch_size: int,
        sampler: str = "uniform",
        num_workers: int = 0,
        *,
        sampler_options: Mapping | None = None,
        split: str | None = None,
        val_split: str | None = None,
        scale_by: str = "field",
        low_percentile: float = LOW_PERCENTILE,
        high_percentile: float = HIGH_PERCENTILE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not datasets:
            raise ValueError("datasets is empty: name at least one {root: folder}")
        unknown = sorted({key for entry in datasets for key in entry} - {"root", "weight"})
        if unknown:
            raise ValueError(f"datasets entries know root and weight, not {unknown}")
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler={sampler!r} is none of {sorted(SAMPLERS)}")
        self.roots = [str(entry["root"]) for entry in datasets]
        self.weights = [float(entry.get("weight", 1)) for entry in datasets]
        self.batch_size = batch_size
        self.sampler = sampler
        self.sampler_options = dict(sampler_options or {})
        self.split, self.val_split = split, val_split
        self.scaling = (scale_by, low_percentile, high_percentile)
        self.num_workers = num_workers
        self.seed = seed
        self._mixtures: dict[str | None, Mixture] = {}
        self._loader: ResumableLoader | None = None
        self._state: dict[str, int] = {"epoch": 0, "batches_ready": 0}

    def setup(self, stage: str | None = None) -> None:
        """Open the datasets; cheap, and safe to call before the trainer does."""
        for split in {self.split, self.val_split or self.split}:
            if split not in self._mixtures:
                datasets = [ShardDataset(root, split, *self.scaling) for root in self.roots]
                self._mixtures[split] = Mixture(datasets, self.weights)

    @property
    def mixture(self) -> Mixture:
        self.setup()
        return self._mixtures[self.split]

    @property
    def table(self) -> PerturbationTable:
        return self.mixture.table

    @property
    def channels(self) -> tuple[str, ...]:
        return self.mixture.datasets[0].channels

    def train_dataloader(self) -> ResumableLoader:
        plan = SAMPLERS[self.sampler](self.mixture, self.batch_size * world_size(), self.seed, **self.sampler_options)
        state = self.state_dict()
        self._loader = self._make_loader(self.mixture, EpochSampler(plan, rank(), world_size()))
        self._loader.load_state_dict(state)
        return self._loader

    def val_dataloader(self) -> ResumableLoader | list:
        if self.val_split is None:
            return []
        self.setup()
        mixture = self._mixtures[self.val_split]
        plan = Sequential(mixture, self.batch_size * world_size(), world_size())
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size()))

    def _make_loader(self, mixture: Mixture, sampler: EpochSampler) -> ResumableLoader:
        # The sampler yields the rows of whole batches, so the loader itself must not batch.
        return ResumableLoader(
            mixture,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch and the batches of it that are ready (handed out)."""
        return self._state if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._state = dict(state)
        if self._loader is not None:
            self._loader.load_state_dict(self._state)
