"""Batches for a Lightning run: datasets, sampler and loader, resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from morphoclip.data.loading.loader import Loader
from morphoclip.data.loading.resumable import ResumableDataModule
from morphoclip.data.sampling.active_bags import ActiveBags
from morphoclip.data.sampling.balanced import Balanced, Wells
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.pairs import Pairs
from morphoclip.data.sampling.samplers import Bags, EpochSampler, Sequential, Uniform
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
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

    Use it with `Trainer(use_distributed_sampler=False)`: batches are drawn for all ranks and sliced by rank.

    Args:
        datasets: `{"root": folder, "weight": 1.0}` each; the weight is how often a crop is shown, relative to the others.
        batch_size: crops, bags or pairs per rank and step.
        sampler: `uniform`, every crop once per epoch; `bags`, N crops of one perturbation across plates and wells;
            `pairs`, two wells of one perturbation; `wells`, at most k wells of one perturbation; or `balanced`, every
            class equally often.
        num_workers: threads that read and decode ahead; with 0 a batch is read when it is needed.
        sampler_options: arguments of the sampler: see `samplers.Bags`, `pairs.Pairs`, `balanced.Wells` and
            `balanced.Balanced`.
        split: the split to train on; None for all crops.
        val_split: the split to validate on, crop by crop in order; None for no validation.
        scale_by, low_percentile, high_percentile: intensity scaling, see `ShardDataset`.
        on_bad_sample: `error`, or `skip`: see `Mixture`.
        prefetch: batches read ahead.
        seed: seed of all random draws.

    Attributes:
        mixture: the training crops, after `setup`; table: their `PerturbationTable`; channels: names in order.
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
        on_bad_sample: str = "error",
        prefetch: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(split, val_split)
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
        self.scaling = (scale_by, low_percentile, high_percentile)
        self.num_workers, self.prefetch = num_workers, prefetch
        self.on_bad_sample = on_bad_sample
        self.seed = seed

    def _open(self, split: str | None) -> Mixture:
        datasets = [ShardDataset(root, split, *self.scaling) for root in self.roots]
        return Mixture(datasets, self.weights, self.on_bad_sample)

    def _training(self, mixture: Mixture) -> Loader:
        plan = SAMPLERS[self.sampler](mixture, self.batch_size * world_size(), self.seed, **self.sampler_options)
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size()))

    def _validation(self, mixture: Mixture) -> Loader:
        plan = Sequential(mixture, self.batch_size * world_size(), world_size())
        return self._make_loader(mixture, EpochSampler(plan, rank(), world_size()))

    def _make_loader(self, mixture: Mixture, sampler: EpochSampler) -> Loader:
        return Loader(mixture, sampler, self.num_workers, self.prefetch)
