"""Precision at each positive by counting negatives, exact for ties, one block of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from morphoclip.evaluation.ranking.chance import harmonic
from morphoclip.evaluation.ranking.similarity import Similarity, tie_tolerance

_BLOCK_BYTES = 48 * 2**20


_SCAN_RATIO = 256


_CACHE_BYTES = 2**19


@dataclass
class Counter:
    """Ranks positives among negatives, one block of queries at a time."""

    features: np.ndarray
    measure: Similarity
    ties: str
    batch_size: int | None

    def __post_init__(self) -> None:
        self.tolerance = tie_tolerance(self.features.dtype)

    def similarities(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return self.measure.block(self.features[rows], self.features[columns])

    def batches(self, rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
        size = self.batch_size or max(1, _BLOCK_BYTES // (max(width, 1) * self.features.itemsize))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def rank(self, positives: np.ndarray, n_pos: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AP (Q,) and number of tied pairs (Q,) from positives (Q, P) and negatives (Q, M), both padded with -inf.

        `negatives` may be sorted in place.
        """
        positives = -np.sort(-positives, axis=1)  # (Q, P), best first, padding last
        valid = np.arange(positives.shape[1]) < n_pos[:, None]
        above, from_here = _count_from(negatives, positives, n_pos, self.tolerance)
        tied = from_here - above  # (Q, P) negatives tied with each positive
        order = np.arange(1, positives.shape[1] + 1)
        precision = order / (order + above)
        if self.ties == "expected":
            self._spread_ties(precision, positives, above, tied)
        return np.sum(precision, axis=1, where=valid) / n_pos, tied.sum(axis=1)

    def _spread_ties(self, precision: np.ndarray, positives: np.ndarray, above: np.ndarray, tied: np.ndarray) -> None:
        """Replace, in place, the precision of positives tied with negatives by its mean over the orders of the tie."""
        if not tied.any():
            return
        tied_positive = np.zeros(positives.shape, bool)  # tied with another positive
        with np.errstate(invalid="ignore"):
            tied_positive[:, 1:] = positives[:, :-1] - positives[:, 1:] <= self.tolerance
        tied_positive[:, :-1] |= tied_positive[:, 1:]
        rows, ranks = np.nonzero((tied > 0) & ~tied_positive)
        rank, t = ranks + above[rows, ranks], 1 + tied[rows, ranks]
        precision[rows, ranks] = (ranks + 1) * (harmonic(rank + t) - harmonic(rank)) / t
        rows, ranks = np.nonzero((tied > 0) & tied_positive)
        precision[rows, ranks] = self._expected_precision(positives, rows, ranks, above, tied)

    def _expected_precision(
        self, positives: np.ndarray, rows: np.ndarray, ranks: np.ndarray, above: np.ndarray, tied: np.ndarray
    ) -> np.ndarray:
        """Expected precision, over the orders of ties, of the positives (Q, P; best first) at (rows, ranks).

        A tie of p positives and m negatives takes T = p + m ranks, below a positives and b negatives. Rank t of it is a
        positive with probability p / T, and then (t - 1)(p - 1)/(T - 1) positives of the tie are expected above it, so
        the sum of precisions is (p/T) sum_t [a + 1 + (t - 1)(p - 1)/(T - 1)] / (a + b + t), of which each positive gets
        1/p. Sums over t are differences of harmonic numbers.
        """
        first, last = np.empty((2, len(rows)), np.int64)
        tolerance = positives.dtype.type(self.tolerance)
        ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows))
        for start, end in pairwise([0, *ends] if len(rows) else []):
            ascending = -positives[rows[start]]
            tie = ascending[ranks[start:end]]
            first[start:end] = ascending.searchsorted(tie - tolerance)
            last[start:end] = ascending.searchsorted(tie + tolerance, "right")
        p, t = last - first, last - first + tied[rows, ranks]
        rank = first + above[rows, ranks]
        reciprocals = harmonic(rank + t) - harmonic(rank)
        return ((first + 1) * reciprocals + (p - 1) / (t - 1) * (t - (rank + 1) * reciprocals)) / t


def _count_from(
    negatives: np.ndarray, positives: np.ndarray, n_pos: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of negatives above, and above or tied with, each positive of the same row; int64 (Q, P), 0 for padding."""
    above, from_here = np.zeros(positives.shape, np.int64), np.zeros(positives.shape, np.int64)
    upper, lower = positives + positives.dtype.type(tolerance), positives - positives.dtype.type(tolerance)
    width = negatives.shape[1]
    scan = width > _SCAN_RATIO * positives.shape[1]  # with few positives, scanning is faster than sorting

    def scanned(row: int) -> None:
        for i in range(n_pos[row]):
            above[row, i] = np.count_nonzero(negatives[row] > upper[row, i])
            from_here[row, i] = np.count_nonzero(negatives[row] >= lower[row, i])

    def searched(row: int) -> None:
        values, k = negatives[row], n_pos[row]
        below = values.searchsorted(upper[row, :k], "right")
        above[row, :k] = from_here[row, :k] = width - below
        tied = (values[below - 1] >= lower[row, :k]).nonzero()[0]  # if below is 0 the search finds none
        if len(tied):
            from_here[row, tied] = width - values.searchsorted(lower[row, tied])

    def count(rows: slice) -> None:
        if not scan:
            negatives[rows].sort(axis=1)
        for row in range(rows.start, rows.stop):
            (scanned if scan else searched)(row)

    # numpy sorts and searches without the GIL: two threads, each with as many rows at a time as fit its cache
    size = max(1, _CACHE_BYTES // max(1, width * negatives.itemsize))
    parts = [slice(start, min(start + size, len(negatives))) for start in range(0, len(negatives), size)]
    if len(parts) < 2:
        for part in parts:
            count(part)
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(count, parts))
    return above, from_here
