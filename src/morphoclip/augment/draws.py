"""Uniform random numbers that are a function of (key, row, column): a rank computes those of its own rows, on its device."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

GAMMA = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
WORD = 2**64
COLUMNS = 32


@dataclass
class Rows:
    """Random numbers of the rows of a global batch from `start` on.

    A row gets the same numbers whichever rows are asked for, on any device and any number of ranks: number i of a key is
    the i-th output of SplitMix64 seeded by the key (Steele, Lea and Flood 2014, fig. 17), computed in integers. Nothing is
    copied to the device. Each call of `uniform` gives further numbers: the next columns of a block of `COLUMNS`, as on a GPU
    the kernels that make numbers cost more than the numbers.

    Attributes:
        key: 64 bits that name the draw, e.g. `fold(seed, step, purpose)`.
        start: number of the first row in the global batch.
        device: where the numbers are computed.
    """

    key: int
    start: int = 0
    device: torch.device | str = "cpu"
    _blocks: int = field(default=0, init=False, repr=False)
    _left: Tensor | None = field(default=None, init=False, repr=False)

    def uniform(self, count: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """(count, *shape) numbers from U[0, 1), of 24 bits in float32 and 53 in float64."""
        columns, bits = torch.Size(shape).numel(), 53 if dtype == torch.float64 else 24
        if self._left is None or columns > self._left.shape[1] or count != len(self._left):
            self._left = self._block(count, max(columns, COLUMNS))
        words, self._left = self._left[:, :columns], self._left[:, columns:]
        return shifted(words, 64 - bits).to(dtype).mul_(2.0**-bits).reshape(count, *shape)

    def _block(self, count: int, columns: int) -> Tensor:
        """The words (count, columns) of the next block; each block has a stream of its own."""
        stream = mixed((self.key + self._blocks * GAMMA) % WORD)
        self._blocks += 1
        index = torch.arange(self.start * columns + 1, (self.start + count) * columns + 1, device=self.device)
        return mix(index * signed(GAMMA) + signed(stream)).view(count, columns)


Source = Rows | torch.Generator


def uniform(source: Source, count: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(count, *shape) numbers from U[0, 1): of rows of a global batch, or the next ones of a generator on the CPU."""
    if isinstance(source, torch.Generator):
        return torch.rand(count, *shape, generator=source, dtype=dtype)
    return source.uniform(count, *shape, dtype=dtype)


def mix(words: Tensor) -> Tensor:
    """The finaliser of SplitMix64, elementwise; int64 holds the 64 bits, and products wrap around."""
    for shift, factor in MIX:
        words = (words ^ shifted(words, shift)) * signed(factor)
    return words ^ shifted(words, 31)


def shifted(words: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; that of int64 repeats the sign."""
    return (words >> bits) & (2 ** (64 - bits) - 1)


def mixed(word: int) -> int:
    for shift, factor in MIX:
        word = (word ^ word >> shift) * factor % WORD
    return word ^ word >> 31


def signed(word: int) -> int:
    """The int64 with these 64 bits."""
    return word - WORD if word >= WORD // 2 else word
