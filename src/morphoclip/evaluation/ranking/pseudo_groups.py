"""Pseudo-groups: random subsets of a group and its negatives with the group's composition, scored like the group."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from morphoclip.evaluation.ranking.similarity import Similarity, tie_tolerance

CHUNK = 2**22  # numbers held in memory at a time


class Controls:
    """The rows a group is ranked against, with their similarities (M, M) and mutual ranks, computed once.

    Rows are sorted by their similarity to the others, so that neither row order nor names matter.
    """

    def __init__(self, rows: np.ndarray, stratum: np.ndarray, features: np.ndarray, measure: Similarity):
        self.measure, self.features = measure, features
        key = measure.block(features[rows], features[rows]).sum(axis=1)
        order = np.argsort(key, kind="stable")
        self.rows, self.stratum, self.key = rows[order], stratum[order], key[order]
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


class Pool:
    """A group and the rows it is ranked against; subsets with the group's composition can be scored like the group.

    `ranks[u, v]` is the number of rows of u's stratum, other than u, that rank above v for query u; ties, including v
    itself, count half. Controls come first, then the group's members.
    """

    def __init__(
        self,
        controls: Controls,
        members: np.ndarray,
        stratum: np.ndarray,
        is_query: np.ndarray,
        apart: list[np.ndarray],
    ):
        block, features = controls.measure.block, controls.features
        across = block(features[members], features[controls.rows])
        order = np.argsort(across.sum(axis=1), kind="stable")
        members, stratum, is_query, across = members[order], stratum[order], is_query[order], across[order]
        within = block(features[members], features[members])
        self.similarities = np.block([[controls.similarities, across.T], [across, within]])
        self.tolerance = controls.tolerance
        m = len(controls.rows)
        self.group = m + np.arange(len(members))
        self.apart = [codes[np.concatenate([controls.rows, members])] for codes in apart]
        self.ranks = np.zeros(self.similarities.shape, np.float32)
        self.ranks[:m, :m] = controls.ranks
        strata = []
        for code in np.unique(stratum):
            old, new = np.flatnonzero(controls.stratum == code), m + np.flatnonzero(stratum == code)
            strata.append((old, new, float(controls.key[old].sum())))
            seen = self.similarities[old]
            for w in new:  # rank of a member among the rows of its plate, for all controls of the plate
                self.ranks[old] += self._above(seen[:, [w]], seen)
            for w in self.group:  # a member as a positive: the controls of the plate that rank above it
                ahead = self._above(seen[:, old], seen[:, [w]])
                self.ranks[old, w] += ahead.sum(axis=1) - np.diagonal(ahead)
            for w in new:
                others = np.concatenate([old, new[new != w]])
                self.ranks[w] = self._above(self.similarities[w, others][:, None], self.similarities[w]).sum(axis=0)
        strata.sort(key=lambda part: (len(part[1]), len(part[0]), part[2]))
        self.strata = [np.concatenate([old, new]) for old, new, _ in strata]
        self.counts = [len(new) for _, new, _ in strata]
        self.group = np.concatenate([new for _, new, _ in strata])
        self.query_rows = np.flatnonzero(is_query[self.group - m])  # indices within the group that are queries
        self.stratum_of = np.repeat(np.arange(len(self.counts)), self.counts)  # stratum of each member

    def _above(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        ahead = first - second
        return (ahead > self.tolerance) + np.float32(0.5) * (np.abs(ahead) <= self.tolerance)

    def draw(self, draws: int, seed: int, name: str) -> np.ndarray:
        """float32 (draws,) scores of random subsets with the group's composition; `name` enters the seed."""
        sizes = [len(rows) for rows in self.strata]
        rng = np.random.default_rng([seed, crc32(name.encode()), *sizes, *self.counts])
        scores = np.full(draws, np.nan)
        while (lacking := np.flatnonzero(np.isnan(scores))).size:  # no pair allowed by `pos_diffby`: draw again
            chosen = zip(self.strata, self.counts, strict=True)
            drawn = np.concatenate([rows[_subsets(rng, lacking.size, k, len(rows))] for rows, k in chosen], axis=1)
            parts = np.array_split(drawn, 1 + drawn.size * len(self.group) // CHUNK)
            scores[lacking] = np.concatenate([self.scores(part) for part in parts])
        return scores.astype(np.float32)

    def scores(self, members: np.ndarray) -> np.ndarray:
        """Mean AP (draws,) of pseudo-groups `members` (draws, k), rows of the pool ordered by stratum.

        Rows of u's stratum drawn into the group are not negatives of u, so they are subtracted from its ranks.
        """
        k = members.shape[1]
        order = np.arange(1, k)
        total, number = np.zeros(len(members)), np.zeros(len(members))
        for i in self.query_rows:
            others = np.delete(np.arange(k), i)
            u, v = members[:, i], members[:, others]  # (draws,), (draws, k - 1)
            above = self.ranks[u[:, None], v]
            mates = others[self.stratum_of[others] == self.stratum_of[i]]
            if len(mates):
                seen = self.similarities[u[:, None], v]
                for mate in mates:
                    above = above - self._above(self.similarities[u, members[:, mate]][:, None], seen)
            forbidden = np.zeros(v.shape, bool)
            for codes in self.apart:
                forbidden |= codes[u][:, None] == codes[v]
            above = np.sort(np.where(forbidden, np.inf, np.maximum(above, 0)), axis=1)
            n_pos = (~forbidden).sum(axis=1)
            precision = (order / (order + above)).sum(axis=1)
            total += np.divide(precision, n_pos, out=np.zeros(len(u)), where=n_pos > 0)
            number += n_pos > 0
        return np.divide(total, number, out=np.full(len(members), np.nan), where=number > 0)


def _subsets(rng: np.random.Generator, draws: int, k: int, n: int) -> np.ndarray:
    """int64 (draws, k): random k-subsets of range(n), in random order."""
    if k == 0:
        return np.empty((draws, 0), np.int64)
    if k == 1:
        return rng.integers(0, n, (draws, 1))
    return np.argsort(rng.random((draws, n)), axis=1)[:, :k]
