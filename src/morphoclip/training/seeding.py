"""Random draws as functions of (seed, step, purpose) instead of a state, so that resuming is exact."""

from __future__ import annotations

import hashlib

import torch


def fold(seed: int, *parts: int | str) -> int:
    """A 63-bit number from a seed and names or numbers, the same on every machine and Python version.

    Names and numbers are distinguished: fold(0, 1) != fold(0, "1").
    """
    # int() so that numpy and torch integers count as numbers.
    key = (int(seed), *(part if isinstance(part, str) else int(part) for part in parts))
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `fold`, so that draws do not depend on the device."""
    return torch.Generator().manual_seed(fold(seed, *parts))
