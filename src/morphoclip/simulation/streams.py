"""Random streams seeded by names, so that fields can be drawn in any order and by any process."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_hash(*names: str | float) -> int:
    """128-bit integer of `names`, the same on every machine and in every process (`hash` is not)."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode(), digest_size=16)
    return int.from_bytes(digest.digest(), "little")


def stream(*names: str | float) -> np.random.Generator:
    """The generator seeded by `names`, e.g. `stream(seed, plate, well, site)`."""
    return np.random.Generator(np.random.SFC64(stable_hash(*names)))
