"""Batches for a Lightning run, streamed from an object store."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl

from morphoclip.data.dataset import ShardDataset
from morphoclip.data.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
from morphoclip.data.mixture import Mixture
from morphoclip.data.perturbations import PerturbationTable
from morphoclip.data.stream_loader import StreamLoader
from morphoclip.data.streaming import Stream
from morphoclip.distributed import rank, world_size


class StreamDataModule(pl.LightningDataModule):
    """Training and validation batches of crops of one dataset at a URL, in a local folder or behind a command.

    Use it with `Trainer(use_distributed_sampler=False)`. For single-crop methods (DINO, MAE, SimCLR, MSN); bags and pairs
    of wells need `CellDataModule` and a local disk. A run resumed in mid-epoch reads the epoch's beginning again, without
    decoding it, and goes on with the very next batch.

    Args:
        root: of the dataset (see `remote`): s3://…, gs://…, https://…, a folder, or `pipe:command {}`.
        batch_size: crops a rank and step.
        steps_per_epoch: None for exact epochs, each crop once but for a tail; a number resamples shards with replacement.
        num_workers: threads that decode; each open shard has a thread of its own that reads.
        shuffle_buffer: undecoded crops a rank shuffles among each other.
        open_shards: shards a rank reads at the same time.
        split, val_split, scale_by, low_percentile, high_percentile, on_bad_sample, prefetch, seed: see `CellDataModule`.
            Over several ranks validation leaves out the tail that fills no batch on all.
        retries, timeout: see `remote.Store`.
    """

    def __init__(
        self,
        root: str,
        batch_size: int,
        steps_per_epoch: int | None = None,
        num_workers: int = 0,
        *,
        shuffle_buffer: int = 2000,
        open_shards: int = 4,
        split: str | None = None,
        val_split: str | None = None,
        scale_by: str = "field",
        low_percentile: float = LOW_PERCENTILE,
        high_percentile: float = HIGH_PERCENTILE,
        on_bad_sample: str = "error",
        prefetch: int = 2,
        retries: int = 5,
        timeout: float = 120.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.batch_size, self.steps_per_epoch = str(root), batch_size, steps_per_epoch
        self.num_workers, self.prefetch, self.on_bad_sample = num_workers, prefetch, on_bad_sample
        self.stream_options = {"seed": seed, "open_shards": open_shards, "on_bad_sample": on_bad_sample}
        self.stream_options |= {"retries": retries, "timeout": timeout}
        self.shuffle_buffer = shuffle_buffer
        self.split, self.val_split = split, val_split
        self.scaling = (scale_by, low_percentile, high_percentile)
        self._mixtures: dict[str | None, Mixture] = {}
        self._loader: StreamLoader | None = None
        self._state: dict[str, int] = {"epoch": 0, "batches_ready": 0}

    def _mixture(self, split: str | None) -> Mixture:
        if split not in self._mixtures:
            dataset = ShardDataset(self.root, split, *self.scaling)
            self._mixtures[split] = Mixture([dataset], on_bad_sample=self.on_bad_sample)
        return self._mixtures[split]

    @property
    def mixture(self) -> Mixture:
        return self._mixture(self.split)

    @property
    def table(self) -> PerturbationTable:
        return self.mixture.table

    @property
    def channels(self) -> tuple[str, ...]:
        return self.mixture.datasets[0].channels

    @property
    def skipped(self) -> int:
        """How often a damaged sample was skipped on this rank."""
        return sum(mixture.skipped for mixture in self._mixtures.values())

    def train_dataloader(self) -> StreamLoader:
        state = self.state_dict()
        self._loader = self._make(self.mixture, steps=self.steps_per_epoch, buffer=self.shuffle_buffer)
        self._loader.load_state_dict(state)
        return self._loader

    def val_dataloader(self) -> StreamLoader | list:
        if self.val_split is None:
            return []
        return self._make(self._mixture(self.val_split), buffer=0, short_last=True)

    def _make(self, mixture: Mixture, **options) -> StreamLoader:
        stream = Stream(mixture.datasets[0], self.batch_size, rank(), world_size(), **self.stream_options, **options)
        return StreamLoader(mixture, stream, self.num_workers, self.prefetch)

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch and the batches of it that are ready (handed out)."""
        return self._state if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._state = dict(state)
        if self._loader is not None:
            self._loader.load_state_dict(self._state)
