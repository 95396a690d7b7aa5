"""Pseudo-random numbers from names alone, whatever the machine, the run, the row order or Python's hash seed."""

from __future__ import annotations

import hashlib


def _first_bytes(parts: tuple[object, ...]) -> int:
    """The first 7 bytes of the SHA-256 of `parts`, as an integer below 2^56."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def uniform(*parts: object) -> float:
    """A number in [0, 1) from the hash of `parts`."""
    return _first_bytes(parts) / 2**56


def share(shares: int, *parts: object) -> int:
    """An integer from 0 to `shares` - 1 from the hash of `parts`."""
    return _first_bytes(parts) % shares
