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
from morphoclip.data.sampling.samplers import Bags, EpochSampler, FirstEpoch, Plan, Sequential, Uniform
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
        val_sampler: `sequential`, every crop of `val_split` once and in order; or `training`, the batches that the sampler
            makes of it, the same in each validation, as large as those of training or, if it has too few crops or
            perturbations, a half, a quarter, … of them.
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
        val_sampler: str = "sequential",
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
        if val_sampler not in ("sequential", "training"):
            raise ValueError(f"val_sampler={val_sampler!r}: use sequential or training")
        self.val_sampler = val_sampler

    def _open(self, split: str | None) -> Mixture:
        datasets = [ShardDataset(root, split, *self.scaling) for root in self.roots]
        return Mixture(datasets, self.weights, self.on_bad_sample)

    def _training(self, mixture: Mixture) -> BatchLoader:
        step = self.batch_size * self.accumulate * world_size()
        plan = SAMPLERS[self.sampler](mixture, step, self.seed, **self.sampler_options)
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size(), self.accumulate))

    def _validation(self, mixture: Mixture) -> BatchLoader:
        plan: Plan
        if self.val_sampler == "training":
            plan = FirstEpoch(self._plan_of(mixture))
        else:
            plan = Sequential(mixture, self.batch_size * world_size(), world_size())
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size()))

    def _plan_of(self, mixture: Mixture) -> Plan:
        """The sampler's plan for a split, with the largest batches that it can make."""
        options = (
            {**self.sampler_options, "steps_per_epoch": None} if self.sampler != "uniform" else self.sampler_options
        )
        items = self.batch_size
        while True:
            try:
                return SAMPLERS[self.sampler](mixture, items * world_size(), self.seed, **options)
            except ValueError as error:
                if items == 1:
                    raise ValueError(f"no batch can be made of val_split={self.val_split}: {error}") from error
            items //= 2

    def _make_loader(self, mixture: Mixture, sampler: EpochSampler) -> BatchLoader:
        return Loader(mixture, sampler, self.num_workers, self.prefetch)
