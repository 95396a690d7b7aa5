"""Positives and negatives of each query, from the columns in which rows agree or differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.counter import Counter

_FEW_CLASSES = 16


def row_codes(meta: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """int64 (N,): rows have the same code if and only if they agree in all `columns`."""
    codes = np.zeros(len(meta), np.int64)
    for column in columns:
        values, uniques = pd.factorize(meta[column])
        codes = pd.factorize(codes * (len(uniques) + 1) + values)[0]
    return codes


@dataclass
class Positives:
    """The positives of each row: rows equal in `pos_sameby` and different in each `pos_diffby` column."""

    codes: np.ndarray
    different: list[np.ndarray]

    def __post_init__(self) -> None:
        self.order = np.argsort(self.codes, kind="stable")
        self.starts = np.searchsorted(self.codes[self.order], np.arange(self.codes.max(initial=-1) + 2))

    def members(self, code: int) -> np.ndarray:
        return self.order[self.starts[code] : self.starts[code + 1]]

    def counts(self) -> np.ndarray:
        """Number of positives of each row, without the row itself."""
        if not self.different:
            return np.bincount(self.codes)[self.codes] - 1
        counts = np.zeros(len(self.codes), np.int64)
        for code in range(len(self.starts) - 1):
            members = self.members(code)
            for batch in np.array_split(members, 1 + len(members) ** 2 // 10**7):
                counts[batch] = self._allowed(batch, members).sum(axis=1)
        return counts

    def similarities(self, batch: np.ndarray, counter: Counter) -> np.ndarray:
        """(B, P) similarities of a batch, sorted by code, to its positives, padded with -inf."""
        codes, first = np.unique(self.codes[batch], return_index=True)
        ends = np.append(first[1:], len(batch))
        width = max(self.starts[code + 1] - self.starts[code] for code in codes)
        block = np.full((len(batch), width), -np.inf, counter.features.dtype)
        for code, start, end in zip(codes, first, ends, strict=True):
            members = self.members(code)
            part = counter.similarities(batch[start:end], members)
            part[~self._allowed(batch[start:end], members)] = -np.inf
            block[start:end, : len(members)] = part
        return block

    def _allowed(self, rows: np.ndarray, members: np.ndarray) -> np.ndarray:
        allowed = rows[:, None] != members
        for column in self.different:
            allowed &= column[rows][:, None] != column[members]
        return allowed


@dataclass
class Excluded:
    """Rows of a block that are not negatives of a query: the query and those equal to it in a `neg_diffby` column."""

    columns: np.ndarray
    different: list[np.ndarray]

    def _rows(self, row: int) -> np.ndarray:
        if not self.different:
            return np.flatnonzero(self.columns == row)
        same = self.different[0][self.columns] == self.different[0][row]
        for codes in self.different[1:]:
            same |= codes[self.columns] == codes[row]
        return np.flatnonzero(same)

    def _groups(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (indices into `rows`, excluded indices into `columns`) for groups of rows that exclude the same."""
        keys = np.stack([codes[rows] for codes in self.different] or [rows])
        _, inverse = np.unique(keys, axis=1, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        for chosen in np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1):
            yield chosen, self._rows(rows[chosen[0]])

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        sizes = np.zeros(len(rows), np.int64)
        for chosen, excluded in self._groups(rows):
            sizes[chosen] = len(excluded)
        return sizes

    def mask(self, block: np.ndarray, rows: np.ndarray) -> None:
        for chosen, excluded in self._groups(rows):
            block[chosen[:, None], excluded] = -np.inf


def negative_blocks(
    meta: pd.DataFrame, sameby: Sequence[str], diffby: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray, Excluded | None]]:
    """Yield (queries, candidate negatives, candidates to exclude) such that each row is a query once.

    With few classes of queries (treated against controls) each class gets exactly its negatives. With many (all against
    all) the queries share all rows of the block as candidates and exclude a few.
    """
    different = [row_codes(meta, [column]) for column in diffby]
    same = row_codes(meta, sameby)
    order = np.argsort(same, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(same[order])) + 1):
        classes = row_codes(meta.iloc[rows], diffby)
        if not diffby or classes.max() >= _FEW_CLASSES:
            yield rows, rows, Excluded(rows, different)
            continue
        for label in range(classes.max() + 1):
            queries = rows[classes == label]
            allowed = np.logical_and.reduce([codes[rows] != codes[queries[0]] for codes in different])
            yield queries, rows[allowed], None
