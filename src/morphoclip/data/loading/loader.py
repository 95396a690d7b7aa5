"""Batches read ahead by threads into reused buffers, resumable in the middle of an epoch.

Threads, not processes: reading, checksums and decoding release the interpreter's lock, so threads use all cores and
write crops directly into the batch. A process would have to copy every batch through shared memory.
`python -m benchmarks.loader` measures both.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from morphoclip.batch import Batch
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import EpochSampler
from morphoclip.data.shards.parallel import make_ahead

CROPS_PER_TASK = 8  # enough to make a task's overhead small, few enough to divide a batch among many threads


class Buffers:
    """Arrays for the pixels of a batch, reused once no tensor refers to them.

    New memory would have to be zeroed page by page. With a GPU the arrays are pinned, and torch's allocator of pinned
    memory reuses a block only when the copies from it are done.
    """

    def __init__(self, keep: int) -> None:
        self.pinned = torch.cuda.is_available()
        self._arrays: deque[np.ndarray] = deque(maxlen=keep)

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialised uint16 array of `shape`."""
        if self.pinned:
            return torch.empty(shape, dtype=torch.uint16, pin_memory=True).numpy()
        for array, count in zip(self._arrays, _references(self._arrays), strict=True):
            if array.shape == shape and count == NOBODY_ELSE:
                return array
        self._arrays.append(np.empty(shape, np.uint16))
        return self._arrays[-1]


def _references(arrays: deque[np.ndarray]) -> list[int]:
    """Number of references to each array; every view and tensor of it adds one."""
    return [sys.getrefcount(array) for array in arrays]


NOBODY_ELSE = _references(deque([np.empty(0)]))[
    0
]  # measured, because versions of Python count their own references differently


@dataclass(frozen=True)
class Request:
    """A batch to be read: `read(part, out)` reads some of its crops and returns bool, True for those skipped."""

    items: np.ndarray
    read: Callable[[slice, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Reading:
    """A batch being read."""

    items: np.ndarray
    images: np.ndarray
    parts: list[Future]


class Loader:
    """The batches of a sampler; counts those it has yielded, so that its state is exact whatever was read ahead.

    `len` is always the full epoch; after `load_state_dict` the first iteration yields the rest of it. In a plain
    loop every iteration is the next epoch. A batch stays valid as long as the caller keeps it.

    Args:
        mixture: source of the crops.
        sampler: gives the crops of each batch.
        num_workers: threads that read, beside one that draws; with 0 a batch is drawn and read when it is needed.
        prefetch: batches read ahead.
    """

    def __init__(self, mixture: Mixture, sampler: EpochSampler, num_workers: int = 0, prefetch: int = 2) -> None:
        self.mixture, self.sampler = mixture, sampler
        self.num_workers, self.prefetch = num_workers, prefetch
        self._buffers = Buffers(keep=prefetch + 4)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self._count(self._requests(iter(self.sampler)))  # not a generator: the epoch must be fixed on this call

    def _count(self, requests: Iterator[Request]) -> Iterator[Batch]:
        # A step that asks for a batch finds it made: joining its parts, too, takes the interpreter's lock for a while.
        for batch in make_ahead(self._read_ahead(requests), 1) if self.num_workers else map(self._read, requests):
            self.sampler.ready += 1
            yield batch

    def _requests(self, chosen: Iterator[np.ndarray]) -> Iterator[Request]:
        # Drawing the bags of many ranks takes long, and every step would wait for it.
        for items in make_ahead(chosen, self.prefetch + 1) if self.num_workers else chosen:
            yield Request(items, partial(self._read_part, items.reshape(-1)))

    def _read_part(self, items: np.ndarray, part: slice, out: np.ndarray) -> np.ndarray:
        return self.mixture.read(items[part], out)

    def _images(self, request: Request) -> np.ndarray:
        return self._buffers.take((request.items.size, *self.mixture.datasets[0].shape))

    def _read(self, request: Request) -> Batch:
        images = self._images(request)
        return self._made(request.items, images, request.read(slice(None), images))

    def _read_ahead(self, requests: Iterator[Request]) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.num_workers, "loader")
        waiting: deque[_Reading] = deque()
        try:
            for request in requests:
                waiting.append(self._start(pool, request))
                if len(waiting) > self.prefetch:
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, request: Request) -> _Reading:
        images = self._images(request)
        parts = [slice(start, start + CROPS_PER_TASK) for start in range(0, len(images), CROPS_PER_TASK)]
        return _Reading(request.items, images, [pool.submit(request.read, part, images[part]) for part in parts])

    def _finish(self, reading: _Reading) -> Batch:
        bad = np.concatenate([part.result() for part in reading.parts])
        return self._made(reading.items, reading.images, bad)

    def _made(self, items: np.ndarray, images: np.ndarray, bad: np.ndarray) -> Batch:
        batch = self.mixture.batch(items, images, bad)
        return batch.pin_memory() if self._buffers.pinned else batch

    def state_dict(self) -> dict[str, int]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.load_state_dict(state)
