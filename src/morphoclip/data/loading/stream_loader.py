"""The loader of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from morphoclip.data.loading.loader import Loader, Request
from morphoclip.data.loading.streaming import Stream, StreamedSample
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import WHOLE, EpochSampler


class Turns:
    """A plan whose rows are (epoch, step): a stream chooses its samples itself."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def rows(self, epoch: int, step: int, part: tuple[int, int] = WHOLE) -> np.ndarray:
        return np.array([epoch, step])


class StreamLoader(Loader):
    """The batches of a stream, decoded by threads; its state is as exact as `Loader`'s.

    Args:
        mixture: the stream's dataset and no other.
        stream: source of the samples; it reads ahead itself.
        num_workers, prefetch: as for `Loader`.
    """

    def __init__(self, mixture: Mixture, stream: Stream, num_workers: int = 0, prefetch: int = 2) -> None:
        super().__init__(mixture, EpochSampler(Turns(stream.steps)), num_workers, prefetch)
        self.stream = stream

    def _requests(self, chosen: Iterator[np.ndarray]) -> Iterator[Request]:
        first = next(chosen, None)
        if first is None:
            return
        for batch in self.stream.batches(*first.tolist()):
            yield Request(self.stream.items(batch), partial(self._decode_part, batch))

    def _decode_part(self, batch: Sequence[StreamedSample], part: slice, out: np.ndarray) -> np.ndarray:
        decode = self.stream.decode
        return ~np.array([self.mixture.attempt(partial(decode, *pair)) for pair in zip(batch[part], out, strict=True)])
