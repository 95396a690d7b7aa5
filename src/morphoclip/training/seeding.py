"""Randomness as a function, not a state: draws follow from (seed, step, purpose), so that resume is exact."""

from __future__ import annotations

import hashlib

import torch


def fold(seed: int, *parts: int | str) -> int:
    """A 63-bit number from a seed and names or numbers, the same on every machine and Python.

    Names and numbers of the same spelling differ: fold(0, 1) != fold(0, "1").
    """
    # int() so that a numpy or torch integer counts as the number it is.
    key = (int(seed), *(part if isinstance(part, str) else int(part) for part in parts))
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `fold`: draws are the same whatever the device."""
    return torch.Generator().manual_seed(fold(seed, *parts))
