"""Batches for a Lightning run, streamed from an object store."""

from __future__ import annotations

from morphoclip.data.loading.resumable import ResumableDataModule
from morphoclip.data.loading.stream_loader import StreamLoader
from morphoclip.data.loading.streaming import Stream
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.manifest import HIGH_PERCENTILE, LOW_PERCENTILE
from morphoclip.distributed import rank, world_size


class StreamDataModule(ResumableDataModule):
    """Training and validation batches of crops from one dataset at a URL, in a local folder or piped from a command.

    Use it with `Trainer(use_distributed_sampler=False)`. For single-crop methods (DINO, MAE, SimCLR, MSN); bags and pairs
    of wells need `CellDataModule` and a local disk. A run resumed in mid-epoch reads past the batches already seen,
    without decoding them, and continues with the next batch.

    Args:
        root: location of the dataset (see `remote`): s3://…, gs://…, https://…, a folder, or `pipe:command {}`.
        batch_size: crops per rank and step.
        steps_per_epoch: None for exact epochs, each crop once except a last incomplete batch; a number resamples shards
            with replacement.
        num_workers: threads that decode; each open shard has its own thread that reads.
        shuffle_buffer: undecoded crops held for shuffling, per rank.
        open_shards: shards read at the same time, per rank.
        split, val_split, scale_by, low_percentile, high_percentile, on_bad_sample, prefetch, seed: see `CellDataModule`.
            On several ranks validation leaves out crops that would make ranks run a different number of batches.
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
        super().__init__(split, val_split)
        self.root, self.batch_size, self.steps_per_epoch = str(root), batch_size, steps_per_epoch
        self.num_workers, self.prefetch, self.on_bad_sample = num_workers, prefetch, on_bad_sample
        self.stream_options = {"seed": seed, "open_shards": open_shards, "on_bad_sample": on_bad_sample}
        self.stream_options |= {"retries": retries, "timeout": timeout}
        self.shuffle_buffer = shuffle_buffer
        self.scaling = (scale_by, low_percentile, high_percentile)

    def _open(self, split: str | None) -> Mixture:
        return Mixture([ShardDataset(self.root, split, *self.scaling)], on_bad_sample=self.on_bad_sample)

    def _training(self, mixture: Mixture) -> StreamLoader:
        return self._make(mixture, steps=self.steps_per_epoch, buffer=self.shuffle_buffer)

    def _validation(self, mixture: Mixture) -> StreamLoader:
        return self._make(mixture, buffer=0, short_last=True)

    def _make(self, mixture: Mixture, **options) -> StreamLoader:
        stream = Stream(mixture.datasets[0], self.batch_size, rank(), world_size(), **self.stream_options, **options)
        return StreamLoader(mixture, stream, self.num_workers, self.prefetch)
