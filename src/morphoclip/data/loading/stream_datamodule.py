"""Batches for a Lightning run, streamed from an object store."""

from __future__ import annotations

from typing import Any

from morphoclip.data.loading.resumable import ResumableDataModule
from morphoclip.data.loading.stream_loader import StreamLoader
from morphoclip.data.loading.streaming import Stream
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.distributed import rank, world_size


class StreamDataModule(ResumableDataModule):
    """Training and validation batches of crops from one dataset at a URL, in a local folder or piped from a command.

    For single-crop methods (DINO, MAE, SimCLR, MSN); bags and pairs of wells need `CellDataModule` and a local disk. A run
    resumed in mid-epoch reads past the batches already seen, without decoding them, and continues with the next batch. On
    several ranks validation leaves out crops that would make ranks run a different number of batches.

    Args:
        root: location of the dataset (see `remote`): s3://…, gs://…, https://…, a folder, or `pipe:command {}`.
        batch_size: crops per rank and batch; or give `global_batch_size`.
        steps_per_epoch: None for exact epochs, each crop once except a last incomplete batch; a number resamples shards
            with replacement.
        num_workers: threads that decode; each open shard has its own thread that reads.
        shuffle_buffer: undecoded crops held for shuffling, per rank.
        open_shards: shards read at the same time, per rank.
        retries, timeout: see `remote.Store`.
        options: further arguments of `ResumableDataModule`.
    """

    def __init__(
        self,
        root: str,
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        num_workers: int = 0,
        *,
        shuffle_buffer: int = 2000,
        open_shards: int = 4,
        retries: int = 5,
        timeout: float = 120.0,
        **options: Any,
    ) -> None:
        super().__init__(batch_size, num_workers, **options)
        self.root, self.steps_per_epoch, self.shuffle_buffer = str(root), steps_per_epoch, shuffle_buffer
        self.stream_options: dict[str, Any] = {"seed": self.seed, "open_shards": open_shards}
        self.stream_options |= {"on_bad_sample": self.on_bad_sample, "retries": retries, "timeout": timeout}

    def _open(self, split: str | None) -> Mixture:
        return Mixture([ShardDataset(self.root, split, *self.scaling)], on_bad_sample=self.on_bad_sample)

    def _training(self, mixture: Mixture) -> StreamLoader:
        return self._make(mixture, steps=self.steps_per_epoch, buffer=self.shuffle_buffer)

    def _validation(self, mixture: Mixture) -> StreamLoader:
        return self._make(mixture, buffer=0, short_last=True)

    def _make(self, mixture: Mixture, **options) -> StreamLoader:
        stream = Stream(mixture.datasets[0], self.batch_size, rank(), world_size(), **self.stream_options, **options)
        return StreamLoader(mixture, stream, self.num_workers, self.prefetch)
