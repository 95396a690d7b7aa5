"""Similarities between the rows of two feature blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Dot products of the same two profiles may differ by this many rounding units, depending on how the matrix product is
# blocked. Similarities closer than that are ties.
_TIE_ULPS = 4


@dataclass(frozen=True)
class Similarity:
    """`prepare` is called once on all rows (N, D), then `block` on two prepared parts (A, D), (B, D) -> (A, B)."""

    prepare: Callable[[np.ndarray], np.ndarray]
    block: Callable[[np.ndarray, np.ndarray], np.ndarray]


def tie_tolerance(dtype: np.dtype) -> float:
    return _TIE_ULPS * float(np.finfo(dtype).eps)


def checked_features(features: np.ndarray, name: Callable[[int], str] = "row {}".format) -> np.ndarray:
    """Features (N, D) as float32 (kept) or float64, after checking that every row can be compared.

    Raises:
        ValueError: NaN, infinite or all-zero rows; the message names them by `name(row)`.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise ValueError(f"features are {features.shape}: expected (rows, features)")
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float64)
    peak = np.abs(features).max(axis=1) if features.shape[1] else np.zeros(len(features))
    for bad, what, remedy in (
        (np.isnan(peak), "NaN", "drop or impute these wells or features"),
        (np.isinf(peak), "infinite values", "drop these wells or features"),
        (peak == 0, "only zeros", "their cosine is not defined: drop these wells, or check the encoder for collapse"),
    ):
        if bad.any():
            rows = np.flatnonzero(bad)
            shown = [name(int(row)) for row in rows[:5]]
            raise ValueError(f"{len(rows)} profiles hold {what}, the first are {', '.join(shown)}: {remedy}")
    return features


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Rows divided by their norm; scaled by their largest value first, against over- and underflow."""
    features = features / np.abs(features).max(axis=1, keepdims=True)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b.T


def _abs_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    block = a @ b.T
    return np.abs(block, out=block)


def _tanimoto(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    shared = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - shared
    return shared / np.maximum(union, 1)


def _closeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return -np.abs(a - b.T)


SIMILARITIES: dict[str, Similarity] = {
    "cosine": Similarity(unit_rows, _cosine),
    "abs_cosine": Similarity(unit_rows, _abs_cosine),
    # binary fingerprints (N, bits)
    "tanimoto": Similarity(lambda bits: (bits > 0).astype(np.float32), _tanimoto),
    # one number per row (N, 1): minus the absolute difference
    "absolute_difference": Similarity(lambda values: values.astype(np.float64), _closeness),
}


def similarity(name: str) -> Similarity:
    if name not in SIMILARITIES:
        raise ValueError(f"distance={name!r} is unknown: choose one of {sorted(SIMILARITIES)}")
    return SIMILARITIES[name]
