"""Batches for a Lightning run: datasets, sampler and loader, resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from morphoclip.data.loading.loader import Loader
from morphoclip.data.loading.resumable import BatchLoader, ResumableDataModule
from morphoclip.data.sampling.active_bags import ActiveBags
from morphoclip.data.sampling.balanced import Balanced, Wells
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.pairs import Pairs
from morphoclip.data.sampling.samplers import Bags, EpochSampler, Sequential, Uniform
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.distributed import rank, world_size

SAMPLERS = {
    "uniform": Uniform,
    "bags": Bags,
    "active_bags": ActiveBags,
    "pairs": Pairs,
    "wells": Wells,
    "balanced": Balanced,
}


class CellDataModule(ResumableDataModule):
    """Training and validation batches of one dataset folder or a weighted mixture of several.

    Args:
        datasets: `{"root": folder, "weight": 1.0}` each; the weight is how often a crop is shown, relative to the others.
        batch_size: crops, bags or pairs per rank and batch; or give `global_batch_size`.
        sampler: `uniform`, every crop once per epoch; `bags`, N crops of one perturbation across plates and wells;
            `pairs`, two wells of one perturbation; `wells`, at most k wells of one perturbation; or `balanced`, every
            class equally often.
        sampler_options: arguments of the sampler: see `samplers.Bags`, `pairs.Pairs`, `balanced.Wells` and
            `balanced.Balanced`.
        options: further arguments of `ResumableDataModule`.
    """

    def __init__(
        self,
        datasets: Sequence[Mapping],
        batch_size: int | None = None,
        sampler: str = "uniform",
        num_workers: int = 0,
        *,
        sampler_options: Mapping | None = None,
        **options: Any,
    ) -> None:
        super().__init__(batch_size, num_workers, **options)
        if not datasets:
            raise ValueError("datasets is empty: name at least one {root: folder}")
        unknown = sorted({key for entry in datasets for key in entry} - {"root", "weight"})
        if unknown:
            raise ValueError(f"an entry of datasets has the keys root and weight, not {unknown}")
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler={sampler!r}: use one of {sorted(SAMPLERS)}")
        self.roots = [str(entry["root"]) for entry in datasets]
        self.weights = [float(entry.get("weight", 1)) for entry in datasets]
        self.sampler = sampler
        self.sampler_options = dict(sampler_options or {})

    def _open(self, split: str | None) -> Mixture:
        datasets = [ShardDataset(root, split, *self.scaling) for root in self.roots]
        return Mixture(datasets, self.weights, self.on_bad_sample)

    def _training(self, mixture: Mixture) -> BatchLoader:
        step = self.batch_size * self.accumulate * world_size()
        plan = SAMPLERS[self.sampler](mixture, step, self.seed, **self.sampler_options)
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size(), self.accumulate))

    def _validation(self, mixture: Mixture) -> BatchLoader:
        plan = Sequential(mixture, self.batch_size * world_size(), world_size())
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size()))

    def _make_loader(self, mixture: Mixture, sampler: EpochSampler) -> BatchLoader:
        return Loader(mixture, sampler, self.num_workers, self.prefetch)
