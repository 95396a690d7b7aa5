"""Pseudo-groups: random subsets of a group and its negatives with the group's composition, scored like the group."""

from __future__ import annotations

from copy import copy
from zlib import crc32

import numpy as np

from morphoclip.evaluation.ranking.similarity import Similarity, tie_tolerance

CHUNK = 2**22  # numbers held in memory at a time
MOST, LEAST = 4096, 64  # rows that pseudo-groups are drawn from, of all plates and of each


class Controls:
    """The rows a group is ranked against, with their similarities (M, M) and mutual ranks, computed once.

    A query is ranked against rows of its own `stratum` (M,), and rows are exchanged within a `plate` (M,). Rows are sorted
    by their similarity to the others, so that neither row order nor names matter.
    """

    def __init__(
        self, rows: np.ndarray, stratum: np.ndarray, plate: np.ndarray, features: np.ndarray, measure: Similarity
    ):
        self.measure, self.features = measure, features
        key = measure.block(features[rows], features[rows]).sum(axis=1)
        order = np.argsort(key, kind="stable")
        self.rows, self.stratum, self.plate, self.key = rows[order], stratum[order], plate[order], key[order]
        self.similarities = measure.block(features[self.rows], features[self.rows])
        self.tolerance = self.similarities.dtype.type(tie_tolerance(self.similarities.dtype))
        self.ranks = np.zeros(self.similarities.shape, np.float32)
        for code in np.unique(self.stratum):
            rows_of_stratum = np.flatnonzero(self.stratum == code)
            for i, row in enumerate(rows_of_stratum):
                seen = self.similarities[row]
                values = np.sort(np.delete(seen[rows_of_stratum], i))
                above = len(values) - values.searchsorted(seen + self.tolerance, "right")
                from_here = len(values) - values.searchsorted(seen - self.tolerance)
                self.ranks[row] = (above + from_here) / 2


class Drawn:
    """Rows from which pseudo-groups are drawn, with similarities and ranks, and the group's composition.

    `ranks[u, v]` is the number of candidates of query u that rank above v; ties, including v itself, count half.
    """

    similarities: np.ndarray  # (M, M)
    ranks: np.ndarray  # (M, M)
    tolerance: np.floating
    plates: list[np.ndarray]  # rows of each plate of the group
    counts: list[int]  # members of the group on each plate
    query_rows: np.ndarray  # indices within the group that are queries
    stratum_of: np.ndarray  # stratum of each member
    apart: list[np.ndarray]  # codes in which a positive must differ
    negatives_apart = False  # whether negatives must differ in them too

    def _above(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        ahead = first - second
        return (ahead > self.tolerance) + np.float32(0.5) * (np.abs(ahead) <= self.tolerance)

    def draw(self, draws: int, seed: int, name: str) -> np.ndarray:
        """float32 (draws,) scores of random subsets with the group's composition; `name` enters the seed."""
        sizes = [len(rows) for rows in self.plates]
        rng = np.random.default_rng([seed, crc32(name.encode()), *sizes, *self.counts])
        scores = np.full(draws, np.nan)
        while (lacking := np.flatnonzero(np.isnan(scores))).size:  # no pair allowed by `pos_diffby`: draw again
            chosen = zip(self.plates, self.counts, strict=True)
            drawn = np.concatenate([rows[_subsets(rng, lacking.size, k, len(rows))] for rows, k in chosen], axis=1)
            parts = np.array_split(drawn, 1 + drawn.size * drawn.shape[1] // CHUNK)
            scores[lacking] = np.concatenate([self.scores(part) for part in parts])
        return scores.astype(np.float32)

    def scores(self, members: np.ndarray) -> np.ndarray:
        """Mean AP (draws,) of pseudo-groups `members` (draws, k), rows of the pool ordered by plate.

        Rows of u's stratum drawn into the group are not negatives of u, so they are subtracted from its ranks; where
        negatives too must differ in `apart`, only those that do were counted.
        """
        k = members.shape[1]
        order = np.arange(1, k)
        total, number = np.zeros(len(members)), np.zeros(len(members))
        for i in self.query_rows:
            others = np.delete(np.arange(k), i)
            u, v = members[:, i], members[:, others]  # (draws,), (draws, k - 1)
            above = self.ranks[u[:, None], v]
            forbidden = np.zeros(v.shape, bool)
            for codes in self.apart:
                forbidden |= codes[u][:, None] == codes[v]
            mates = np.flatnonzero(self.stratum_of[others] == self.stratum_of[i])
            if len(mates):
                seen = self.similarities[u[:, None], v]
                for mate in mates:
                    ahead = self._above(seen[:, [mate]], seen)
                    above = above - (ahead * ~forbidden[:, [mate]] if self.negatives_apart else ahead)
            above = np.sort(np.where(forbidden, np.inf, np.maximum(above, 0)), axis=1)
            n_pos = (~forbidden).sum(axis=1)
            precision = (order / (order + above)).sum(axis=1)
            total += np.divide(precision, n_pos, out=np.zeros(len(u)), where=n_pos > 0)
            number += n_pos > 0
        return np.divide(total, number, out=np.full(len(members), np.nan), where=number > 0)


class Pool(Drawn):
    """A group and the rows it is ranked against; subsets with the group's composition can be scored like the group.

    Candidates of u are the other rows of its stratum. Controls come first, then the group's members.
    """

    def __init__(
        self,
        controls: Controls,
        members: np.ndarray,
        stratum: np.ndarray,
        plate: np.ndarray,
        is_query: np.ndarray,
        apart: list[np.ndarray],
    ):
        block, features = controls.measure.block, controls.features
        across = block(features[members], features[controls.rows])
        order = np.argsort(across.sum(axis=1), kind="stable")
        members, stratum, plate = members[order], stratum[order], plate[order]
        is_query, across = is_query[order], across[order]
        within = block(features[members], features[members])
        self.similarities = np.block([[controls.similarities, across.T], [across, within]])
        self.tolerance = controls.tolerance
        m = len(controls.rows)
        self.group = m + np.arange(len(members))
        self.apart = [codes[np.concatenate([controls.rows, members])] for codes in apart]
        self.ranks = np.zeros(self.similarities.shape, np.float32)
        self.ranks[:m, :m] = controls.ranks
        for code in np.unique(stratum):
            old, new = np.flatnonzero(controls.stratum == code), m + np.flatnonzero(stratum == code)
            seen = self.similarities[old]
            for w in new:  # rank of a member among the rows of its plate, for all controls of the plate
                self.ranks[old] += self._above(seen[:, [w]], seen)
            for w in self.group:  # a member as a positive: the controls of the plate that rank above it
                ahead = self._above(seen[:, old], seen[:, [w]])
                self.ranks[old, w] += ahead.sum(axis=1) - np.diagonal(ahead)
            for w in new:
                others = np.concatenate([old, new[new != w]])
                self.ranks[w] = self._above(self.similarities[w, others][:, None], self.similarities[w]).sum(axis=0)
        plates = []
        for code in np.unique(plate):
            old, new = np.flatnonzero(controls.plate == code), m + np.flatnonzero(plate == code)
            plates.append((old, new, float(controls.key[old].sum())))
        plates.sort(key=lambda part: (len(part[1]), len(part[0]), part[2]))
        self.plates = [np.concatenate([old, new]) for old, new, _ in plates]
        self.counts = [len(new) for _, new, _ in plates]
        self.group = np.concatenate([new for _, new, _ in plates])
        self.query_rows = np.flatnonzero(is_query[self.group - m])  # indices within the group that are queries
        self.stratum_of = stratum[self.group - m]  # stratum of each member


class Everyone(Drawn):
    """All rows, each ranked against all others that differ in `apart`: for groups ranked against other groups' rows.

    Groups of one composition have the same null. Of more than MOST rows, a random sample of each plate is drawn from,
    and ranked against all.
    """

    negatives_apart = True

    def __init__(
        self, features: np.ndarray, measure: Similarity, plate: np.ndarray, apart: list[np.ndarray], seed: int
    ):
        n = len(features)
        self.tolerance = features.dtype.type(tie_tolerance(features.dtype))
        chunks = np.array_split(np.arange(n), 1 + n * n // CHUNK)
        key = np.concatenate([measure.block(features[part], features).sum(axis=1) for part in chunks])
        rows = np.argsort(key, kind="stable")
        if n > MOST:
            rng = np.random.default_rng([seed, n])
            parts = [rows[plate[rows] == code] for code in np.unique(plate)]
            rows = np.concatenate([rng.permutation(part)[: max(LEAST, MOST * len(part) // n)] for part in parts])
        self.plate, self.key, self.apart = plate[rows], key[rows], [codes[rows] for codes in apart]
        self.similarities = np.empty((len(rows), len(rows)), features.dtype)
        self.ranks = np.empty((len(rows), len(rows)), np.float32)
        for part in np.array_split(np.arange(len(rows)), 1 + len(rows) * n // CHUNK):
            block = measure.block(features[rows[part]], features)
            for i, seen in zip(part, block, strict=True):
                allowed = np.arange(n) != rows[i]
                for codes in apart:
                    allowed &= codes != codes[rows[i]]
                values = np.sort(seen[allowed])
                self.similarities[i] = seen[rows]
                above = values.searchsorted(seen[rows] + self.tolerance, "right")
                from_here = values.searchsorted(seen[rows] - self.tolerance)
                self.ranks[i] = len(values) - (above + from_here) / 2

    def composed(self, plate: np.ndarray, is_query: np.ndarray) -> Drawn:
        """The rows with the composition of a group: plates (k,) of its members, and which of them are queries."""
        parts = []
        for code in np.unique(plate):
            old, asking = np.flatnonzero(self.plate == code), np.sort(~is_query[plate == code])
            parts.append((len(asking), int((~asking).sum()), len(old), float(self.key[old].sum()), old, ~asking))
        parts.sort(key=lambda part: part[:4])
        group = copy(self)
        group.plates, group.counts = [part[4] for part in parts], [part[0] for part in parts]
        group.query_rows = np.flatnonzero(np.concatenate([part[5] for part in parts]))
        group.stratum_of = np.zeros(len(plate), np.int64)
        return group


def _subsets(rng: np.random.Generator, draws: int, k: int, n: int) -> np.ndarray:
    """int64 (draws, k): random k-subsets of range(n), in random order."""
    if k == 0:
        return np.empty((draws, 0), np.int64)
    if k == 1:
        return rng.integers(0, n, (draws, 1))
    return np.argsort(rng.random((draws, n)), axis=1)[:, :k]
