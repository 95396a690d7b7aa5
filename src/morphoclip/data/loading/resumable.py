"""Base class of the data modules: one mixture per split, and loaders whose progress is part of the checkpoint."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Protocol

import pytorch_lightning as pl

from morphoclip.batch import Batch
from morphoclip.data.metadata.perturbations import PerturbationTable
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.shards.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
from morphoclip.distributed import world_size


class BatchLoader(Protocol):
    """The interface of loaders: an iterable of batches whose progress can be saved and restored."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, int]: ...

    def load_state_dict(self, state: dict[str, int]) -> None: ...


def batches_of(global_batch: int, ranks: int, limit: int | None = None) -> int:
    """The number of equal batches of at most `limit` items that a rank's share of a global batch is divided into.

    Raises:
        ValueError: the global batch cannot be divided among the ranks, or the limit is below 1.
    """
    if global_batch % ranks:
        fitting = [n for n in range(1, global_batch + 1) if global_batch % n == 0]
        near = sorted(sorted(fitting, key=lambda n: abs(n - ranks))[:2])
        sizes = [size for size in (global_batch // ranks * ranks, -(-global_batch // ranks) * ranks) if size]
        raise ValueError(
            f"global_batch_size={global_batch} cannot be divided among {ranks} ranks: start {' or '.join(map(str, near))}, "
            f"or set data.loader.global_batch_size to {' or '.join(map(str, sizes))}"
        )
    share = global_batch // ranks
    if limit is not None and limit < 1:
        raise ValueError(f"max_batch_size={limit} must be at least 1, or null for no limit")
    return next(n for n in range(1, share + 1) if share % n == 0 and (limit is None or share // n <= limit))


class ResumableDataModule(pl.LightningDataModule):
    """Training and validation batches, resumable in the middle of an epoch.

    Use it with `Trainer(use_distributed_sampler=False)`: each rank draws its part of the batch of all ranks.

    Args:
        global_batch_size: items per optimizer step, all ranks together.
        max_batch_size: limit of the batch of a rank; a larger share is divided into equal batches whose gradients are
            accumulated. None for no limit.
        batch_size: instead of the two, items per rank and batch.
        num_workers: threads that read and decode ahead; with 0 a batch is read when it is needed.
        split: the split to train on; None for all crops.
        val_split: the split to validate on; None for no validation.
        scale_by, low_percentile, high_percentile: intensity scaling, see `ShardDataset`.
        on_bad_sample: `error`, or `skip`: see `Mixture`.
        prefetch: batches read ahead.
        seed: seed of all random draws.

    Attributes:
        mixture: the training crops; table: their `PerturbationTable`; channels: names in order.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        num_workers: int = 0,
        *,
        global_batch_size: int | None = None,
        max_batch_size: int | None = None,
        split: str | None = None,
        val_split: str | None = None,
        scale_by: str = "field",
        low_percentile: float = LOW_PERCENTILE,
        high_percentile: float = HIGH_PERCENTILE,
        on_bad_sample: str = "error",
        prefetch: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if (batch_size is None) == (global_batch_size is None):
            raise ValueError("give either global_batch_size (all ranks together) or batch_size (per rank)")
        self._batch_size, self.global_batch_size, self.max_batch_size = batch_size, global_batch_size, max_batch_size
        self.num_workers, self.prefetch, self.seed = num_workers, prefetch, seed
        self.split, self.val_split = split, val_split
        self.scaling = (scale_by, low_percentile, high_percentile)
        self.on_bad_sample = on_bad_sample
        self._mixtures: dict[str | None, Mixture] = {}
        self._loader: BatchLoader | None = None
        self._state: dict[str, int] = {"epoch": 0, "batches_ready": 0}

    @abstractmethod
    def _open(self, split: str | None) -> Mixture:
        """The datasets of a split."""

    @abstractmethod
    def _training(self, mixture: Mixture) -> BatchLoader: ...

    @abstractmethod
    def _validation(self, mixture: Mixture) -> BatchLoader: ...

    def setup(self, stage: str | None = None) -> None:
        """Open the datasets; cheap, and safe to call before the trainer does."""
        for split in {self.split, self.val_split or self.split}:
            if split not in self._mixtures:
                self._mixtures[split] = self._open(split)

    @property
    def batch_size(self) -> int:
        """Items per rank and batch."""
        if self._batch_size is not None:
            return self._batch_size
        assert self.global_batch_size is not None  # one of the two is given
        return self.global_batch_size // (world_size() * self.accumulate)

    @property
    def accumulate(self) -> int:
        """Batches per rank and optimizer step."""
        return batches_of(self.global_batch_size, world_size(), self.max_batch_size) if self.global_batch_size else 1

    @property
    def mixture(self) -> Mixture:
        self.setup()
        return self._mixtures[self.split]

    @property
    def val_mixture(self) -> Mixture:
        """The crops of `val_split`, or all that are trained on if there is none."""
        self.setup()
        return self._mixtures[self.val_split or self.split]

    @property
    def table(self) -> PerturbationTable:
        return self.mixture.table

    @property
    def channels(self) -> tuple[str, ...]:
        return self.mixture.datasets[0].channels

    @property
    def skipped(self) -> int:
        """Number of damaged samples skipped on this rank."""
        return sum(mixture.skipped for mixture in self._mixtures.values())

    def train_dataloader(self) -> BatchLoader:
        state = self.state_dict()
        self._loader = self._training(self.mixture)
        self._loader.load_state_dict(state)
        return self._loader

    def val_dataloader(self) -> BatchLoader | list:
        if self.val_split is None:
            return []
        self.setup()
        return self._validation(self._mixtures[self.val_split])

    def state_dict(self) -> dict[str, int]:
        """Progress of training: the epoch, the number of its batches already yielded, and the items in one on all ranks."""
        state = self._state if self._loader is None else self._loader.state_dict()
        return {**state, "batch_items": self.batch_size * world_size()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on behind the items already yielded, also with other batches or ranks."""
        items = self.batch_size * world_size()
        before = state.get("batch_items", items)
        self._state = {"epoch": state["epoch"], "batches_ready": state["batches_ready"] * before // items}
        if self._loader is not None:
            self._loader.load_state_dict(self._state)
