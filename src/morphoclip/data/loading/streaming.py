"""Crops streamed from a dataset's shards in object stores, one whole shard after another.

The samples are those of the indexed dataset, but batches hold single crops only, shuffling is within a buffer, and every
rank reads its own shards. `webdataset` parses the tars and shuffles; this module assigns shards to ranks, so that all
ranks have the same number of steps whatever the number and size of shards, and no rank waits for another that ran out.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from queue import Empty, Full, Queue
from threading import Event, Thread

import numpy as np
from webdataset.filters import shuffle
from webdataset.tariterators import group_by_keys, tar_file_expander

from morphoclip.data.shards.codecs import crc32
from morphoclip.data.shards.dataset import SampleError, ShardDataset
from morphoclip.data.shards.remote import Store, StoreError, is_final

log = logging.getLogger(__name__)
AHEAD = 64  # undecoded samples read ahead per shard


@dataclass(frozen=True)
class StreamedSample:
    """A sample as stored in its shard: row of the index and undecoded bytes."""

    row: int
    data: bytes


def read_shard(store: Store, name: str, extension: str, samples: int) -> Iterator[StreamedSample]:
    """Yield the `samples` samples of a shard in order, read ahead by a thread.

    A connection that fails, stalls for `store.timeout` seconds or ends early is opened again, and samples already
    yielded are skipped.

    Raises:
        StoreError: all retries failed.
    """
    given = attempt = 0
    while given < samples:
        try:
            for sample in islice(_ahead(lambda: _parse(store, name, extension), store.timeout), given, samples):
                given, attempt = given + 1, 0
                yield sample
            if given < samples:
                raise EOFError(f"the shard ends after {given} of {samples} samples")
        except Exception as error:  # each file system raises its own types
            if is_final(error):
                raise
            store.pause(attempt, f"shards/{name}", error)
            attempt += 1


def _parse(store: Store, name: str, extension: str) -> Iterator[StreamedSample]:
    with store.open(f"shards/{name}") as stream:
        for sample in group_by_keys(tar_file_expander([{"url": name, "stream": stream}])):
            yield StreamedSample(int(sample["__key__"]), sample[extension])


def _ahead(make: Callable[[], Iterator[StreamedSample]], timeout: float) -> Iterator[StreamedSample]:
    """Run `make()` in its own thread, a few items ahead; TimeoutError if it stalls."""
    waiting: Queue = Queue(AHEAD)
    left = Event()

    def put(item: object) -> bool:
        while not left.is_set():
            try:
                waiting.put(item, timeout=0.2)
                return True
            except Full:
                continue
        return False

    def run() -> None:
        try:
            for item in make():
                if not put(item):
                    return
            put(None)
        except BaseException as error:
            put(error)

    Thread(target=run, daemon=True).start()
    try:
        while True:
            try:
                item = waiting.get(timeout=timeout)
            except Empty:
                raise TimeoutError(f"no data for {timeout:g} s") from None
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()


def interleave(streams: Iterator[Iterator[StreamedSample]], count: int) -> Iterator[StreamedSample]:
    """Alternate between `count` streams, replacing each that ends, so that a batch mixes several shards."""
    running = deque(islice(streams, count))
    while running:
        stream = running.popleft()
        sample = next(stream, None)
        if sample is not None:
            yield sample
            running.append(stream)
        elif (following := next(streams, None)) is not None:
            running.appendleft(following)


class Stream:
    """The samples of a split in the order a rank sees them: a function of (seed, epoch, rank) alone.

    In an exact epoch shards are assigned so that all ranks have about equally many samples, and every rank yields as
    many batches as the rank with the fewest. With fewer shards than ranks, every rank reads all shards and keeps every
    world_size-th sample. In a resampled epoch a rank draws shards with replacement for `steps` steps.

    Args:
        dataset: dataset to stream; its index says which samples are in the split.
        batch_size: crops per rank and step.
        rank, world_size: rank of this process and number of ranks.
        steps: None for exact epochs; the number of steps for resampled ones.
        buffer: undecoded samples held for shuffling; 0 keeps the order of the shards.
        open_shards: shards read at the same time.
        short_last: also yield the last, short batch of an exact epoch, equally short on all ranks.
        on_bad_sample: `error`, or `skip`: the rest of an unreadable shard is yielded as empty samples, which `decode`
            refuses one by one.
        retries, timeout: see `Store`.

    Raises:
        ValueError: a rank would have no batch, or with `short_last` no crop.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        *,
        seed: int = 0,
        steps: int | None = None,
        buffer: int = 2000,
        open_shards: int = 4,
        short_last: bool = False,
        on_bad_sample: str = "error",
        retries: int = 5,
        timeout: float = 120.0,
    ) -> None:
        self.dataset, self.batch_size, self.rank, self.world_size = dataset, batch_size, rank, world_size
        self.seed, self.resampled, self.buffer, self.open_shards = seed, steps is not None, buffer, open_shards
        self.on_bad_sample = on_bad_sample
        self.store = Store(dataset.root, retries=retries, timeout=timeout)
        self.shards = [(shard["name"], shard["samples"]) for shard in dataset.manifest["shards"]]
        ends = np.cumsum([samples for _, samples in self.shards])
        self.first_rows = ends - [samples for _, samples in self.shards]
        if dataset.split is None:
            self.counts = np.array([samples for _, samples in self.shards])
        else:
            self.counts = np.diff(np.searchsorted(dataset.rows, ends), prepend=0)
        self.used = np.flatnonzero(self.counts)
        if steps is None:
            fewest = min(self._samples(r) for r in range(world_size))
            most = fewest if short_last else fewest // batch_size * batch_size
            if most == 0:
                raise ValueError(
                    f"a rank of {world_size} has {fewest} crops of {dataset.root}, fewer than a batch of "
                    f"{batch_size}: lower global_batch_size"
                )
        else:
            most = steps * batch_size
        self.most, self.steps = most, -(-most // batch_size)

    def _samples(self, rank: int) -> int:
        """Number of samples of a rank in an exact epoch, the same in every epoch."""
        if len(self.used) < self.world_size:
            total = int(self.counts.sum())
            return total // self.world_size
        return int(self.counts[self._dealt(np.arange(len(self.used)))[rank]].sum())

    def _dealt(self, order: np.ndarray) -> list[list[int]]:
        """Shards of each rank: largest first, each to the rank with the fewest samples so far, ties by `order`."""
        shards = self.used[order]
        shards = shards[np.argsort(-self.counts[shards], kind="stable")]
        dealt: list[list] = [[] for _ in range(self.world_size)]
        load = np.zeros(self.world_size, np.int64)
        for shard in shards.tolist():
            fewest = int(np.argmin(load))
            dealt[fewest].append(shard)
            load[fewest] += self.counts[shard]
        return dealt

    def samples(self, epoch: int) -> Iterator[StreamedSample]:
        """This rank's samples of an epoch; endless where resampled."""
        everyone = np.random.default_rng([self.seed, epoch])
        own = np.random.default_rng([self.seed, epoch, self.rank])
        in_turns = not self.resampled and len(self.used) < self.world_size
        shuffled = self.buffer > 0
        if self.resampled:
            chosen = self._drawn(own)
        elif in_turns:
            chosen = iter((everyone.permutation(self.used) if shuffled else self.used).tolist())
        else:
            order = everyone.permutation(len(self.used)) if shuffled else np.arange(len(self.used))
            dealt = np.array(self._dealt(order)[self.rank])
            chosen = iter((own.permutation(dealt) if shuffled else np.sort(dealt)).tolist())
        streams = (self._kept(shard) for shard in chosen)
        stream = interleave(streams, self.open_shards if shuffled else 1)
        if in_turns:
            stream = islice(stream, self.rank, None, self.world_size)
        if shuffled:
            rng = random.Random(int(own.integers(2**63)))
            stream = shuffle(bufsize=self.buffer, initial=self.buffer // 2, rng=rng)(stream)
        yield from stream

    def _drawn(self, rng: np.random.Generator) -> Iterator[int]:
        share = self.counts[self.used] / self.counts.sum()  # so that every sample is equally likely
        while True:
            yield int(rng.choice(self.used, p=share))

    def _kept(self, shard: int) -> Iterator[StreamedSample]:
        """The samples of a shard that are in the split."""
        for sample in self._read(shard):
            if self.dataset.split is None or self._item(sample.row) is not None:
                yield sample

    def _read(self, shard: int) -> Iterator[StreamedSample]:
        name, samples = self.shards[shard]
        row = int(self.first_rows[shard])
        end = row + samples
        try:
            for sample in read_shard(self.store, name, self.dataset.codec.extension, samples):
                row = sample.row + 1
                yield sample
        except (StoreError, FileNotFoundError) as error:
            if self.on_bad_sample == "error":
                raise
            log.warning("%d samples cannot be read: %s", end - row, error)
            yield from (StreamedSample(missing, b"") for missing in range(row, end))

    def _item(self, row: int) -> int | None:
        """The position of an index row in the split; None if it is not in the split."""
        if self.dataset.split is None:
            return row
        item = int(np.searchsorted(self.dataset.rows, row))
        return item if item < len(self.dataset) and self.dataset.rows[item] == row else None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Sequence[StreamedSample]]:
        """Yield the batches of an epoch from `start` on; earlier ones are read but not decoded."""
        samples = islice(self.samples(epoch), start * self.batch_size, self.most)
        for _ in range(start, self.steps):
            yield list(islice(samples, self.batch_size))

    def items(self, batch: Sequence[StreamedSample]) -> np.ndarray:
        """Positions of a batch's samples in the split, (B,) int64."""
        return np.array([self._item(sample.row) for sample in batch], np.int64)

    def decode(self, sample: StreamedSample, out: np.ndarray) -> None:
        """Check and decode a sample into `out` (C, H, W) uint16.

        Raises:
            SampleError: it differs from its checksum.
        """
        if not sample.data:
            raise SampleError(f"{self.dataset.root}: sample {sample.row:09d} could not be read: copy its shard again")
        if crc32(sample.data) != self.dataset.index["crc32"][sample.row]:
            raise SampleError(f"{self.dataset.root}: sample {sample.row:09d} fails its checksum: copy its shard again")
        self.dataset.codec.decode(sample.data, out)
