"""Signal and batch effect of profiles: all that does not depend on features is prepared once for the pipelines of a set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from morphoclip.evaluation.ranking.chance import expected_average_precision
from morphoclip.evaluation.ranking.counter import Counter
from morphoclip.evaluation.ranking.similarity import checked_features, similarity, unit_rows
from morphoclip.experiment.pipelines.replicates import Profiles

HALVES = ("chosen", "reported")
SCORES = tuple(f"{half}_{what}" for what in ("signal", "batch_effect") for half in HALVES)
CHANCE = "_chance"
_BLOCK_BYTES = 48 * 2**20
_SMALL = 1e-15  # squares of lengths beyond it, and their inverse, are within float32


class Scorer:
    """Replicate mAP of the signal and plate mAP of treated profiles, on each half of the perturbations.

    Positives of a signal profile are the other profiles of its perturbation, negatives the negative controls of its
    plate (batch, source); AP is averaged by perturbation, then over perturbations. For the batch effect, positives are
    treated profiles of the same plate, negatives those of others.

    Args:
        profiles: the profiles of a set at one level of replicates.

    Raises:
        ValueError: a half has no signal profile with a replicate and negative controls.
    """

    def __init__(self, profiles: Profiles) -> None:
        self.profiles = profiles
        self.controls = _by_code(np.flatnonzero(profiles.negative), profiles.block)
        treated = np.flatnonzero(~profiles.negative)
        members = _by_code(treated, profiles.perturbation)
        self.members = [rows for rows in members.values() if len(rows) > 1 and profiles.signal[rows].any()]
        self.replicates = np.zeros(len(profiles.block), np.int64)
        for rows in self.members:
            self.replicates[rows] = len(rows) - 1
        scored = [b in self.controls for b in profiles.block] & profiles.signal & (self.replicates > 0)
        self.queries = _by_code(np.flatnonzero(scored), profiles.block)
        self.weights = np.stack([self._weights(scored & (profiles.half == half)) for half in (0, 1)])
        if (self.weights.sum(axis=1) == 0).any():
            raise ValueError("a half of the perturbations has no replicates with negative controls to rank against")
        by_block = treated[np.argsort(profiles.block[treated], kind="stable")]
        self.treated = [by_block[profiles.half[by_block] == half] for half in (0, 1)]
        self.chances = self._chances()

    def score(self, x: np.ndarray) -> dict[str, float]:
        """The SCORES of wells (N, D), each with its chance.

        Raises:
            ValueError: profiles that are NaN, infinite or zero.
        """
        unit = _unit(self.profiles.values(x), self.profiles.names)
        counter = Counter(unit, similarity("cosine"), "expected", None)
        signal = self.weights @ self._replicate_precision(counter)
        batch_effect = [_block_precision(counter, rows, self.profiles.block[rows]) for rows in self.treated]
        return dict(zip(SCORES, (*map(float, signal), *batch_effect), strict=True)) | self.chances

    def _weights(self, scored: np.ndarray) -> np.ndarray:
        """Weight of each profile (P,) in the mean over perturbations of the mean over their queries."""
        _, code, count = np.unique(self.profiles.perturbation[scored], return_inverse=True, return_counts=True)
        weights = np.zeros(len(scored))
        weights[scored] = 1 / (count[code] * len(count))
        return weights

    def _replicate_precision(self, counter: Counter) -> np.ndarray:
        """AP of each query, (P,); 0 for other profiles."""
        positives = np.full((len(self.replicates), self.replicates.max()), -np.inf, counter.features.dtype)
        for rows in self.members:
            block = counter.similarities(rows, rows)
            off_diagonal = ~np.eye(len(rows), dtype=bool)
            positives[rows, : len(rows) - 1] = block[off_diagonal].reshape(len(rows), -1)
        precision = np.zeros(len(self.replicates))
        for code, rows in self.queries.items():
            negatives = counter.similarities(rows, self.controls[code])
            precision[rows] = counter.rank(positives[rows], self.replicates[rows], negatives)[0]
        return precision

    def _chances(self) -> dict[str, float]:
        """Each score under random rankings."""
        chance = np.zeros(len(self.replicates))
        for code, rows in self.queries.items():
            total = self.replicates[rows] + len(self.controls[code])
            chance[rows] = expected_average_precision(self.replicates[rows], total)
        of_block = []
        for rows in self.treated:
            sizes = np.unique(self.profiles.block[rows], return_counts=True)[1]
            sizes = sizes[sizes > 1]
            of_block.append(
                np.average(expected_average_precision(sizes - 1, np.full(len(sizes), len(rows) - 1)), weights=sizes)
            )
        values = (*(self.weights @ chance), *of_block)
        return {f"{name}{CHANCE}": float(value) for name, value in zip(SCORES, values, strict=True)}


def _unit(profiles: np.ndarray, names: list[str]) -> np.ndarray:
    """Profiles (P, D) of unit length, in place; by `unit_rows`, or with its errors, where lengths overflow or are zero."""
    length = np.sqrt(np.einsum("ij,ij->i", profiles, profiles))[:, None]
    if ((length > _SMALL) & (length < 1 / _SMALL)).all():
        profiles /= length
        return profiles
    return unit_rows(checked_features(profiles, names.__getitem__))


def _by_code(rows: np.ndarray, codes: np.ndarray) -> dict[int, np.ndarray]:
    """Code -> those of `rows` that have it."""
    order = rows[np.argsort(codes[rows], kind="stable")]
    found, starts = np.unique(codes[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))


def _block_precision(counter: Counter, rows: np.ndarray, block: np.ndarray) -> float:
    """Mean AP of retrieving profiles of the same block among all others, for rows sorted by block."""
    total, count = 0.0, 0
    edges = np.flatnonzero(np.diff(block, prepend=-1, append=-1)).tolist()
    features = counter.features[rows]
    everything = features @ features.T if len(rows) ** 2 * features.itemsize <= _BLOCK_BYTES else None
    for start, end in pairwise(edges):
        if end - start < 2:
            continue  # no other profile of the block
        for part in _parts(start, end, len(rows) * 8):
            here = features[part] @ features.T if everything is None else everything[part]
            total += _run_precision(counter, here, slice(start, end), np.arange(part.start, part.stop)).sum()
            count += len(here)
    return total / count


def _run_precision(counter: Counter, here: np.ndarray, positives: slice, own: np.ndarray) -> np.ndarray:
    """AP (Q,) of queries whose positives are a run of columns, from cosines (Q, P) of which `own` (Q,) are with themselves.

    The last bit of each number says whether it is a positive, so that one sort gives the ranks of all positives. Rows with
    ties, which the bit would decide, are ranked by `counter`.
    """
    keys = here.astype(np.float64) + 2.0  # 1..3: positive numbers are ordered as their bits are
    keys[np.arange(len(keys)), own] = 0.0  # sorted to the front
    bits = keys.view(np.int64)
    bits &= ~1
    bits[:, positives] |= 1
    keys.sort(axis=1)
    positive = (bits[:, :0:-1] & 1).astype(bool)  # best first, without the query
    n_pos = positives.stop - positives.start - 1
    rank = np.flatnonzero(positive).reshape(len(keys), n_pos) % positive.shape[1]
    precision = (np.arange(1, n_pos + 1) / (rank + 1)).mean(axis=1)
    near = (np.diff(keys[:, 1:], axis=1) <= counter.tolerance + 1e-15)[:, ::-1]
    tied = (near & (positive[:, 1:] != positive[:, :-1])).any(axis=1)
    if tied.any():
        again = here[tied].copy()
        again[np.arange(len(again)), own[tied]] = -np.inf
        others = np.concatenate([again[:, : positives.start], again[:, positives.stop :]], axis=1)
        precision[tied] = counter.rank(again[:, positives], np.full(len(again), n_pos), others)[0]
    return precision


def _parts(start: int, end: int, row_bytes: int) -> Iterator[slice]:
    size = max(1, _BLOCK_BYTES // row_bytes)
    for at in range(start, end, size):
        yield slice(at, min(at + size, end))
