"""Average precision of every profile by counting the negatives above each positive; pairs are never listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.similarity import Similarity, checked_features, similarity, tie_tolerance

_BLOCK_BYTES = 48 * 2**20
_FEW_CLASSES = 16
_SCAN_RATIO = 256
_CACHE_BYTES = 2**19


def average_precision(
    meta: pd.DataFrame,
    feats: np.ndarray,
    pos_sameby: Sequence[str],
    pos_diffby: Sequence[str],
    neg_sameby: Sequence[str],
    neg_diffby: Sequence[str],
    *,
    distance: str = "cosine",
    ties: str = "expected",
    multilabel_col: str | None = None,
    batch_size: int | None = None,
    queries: np.ndarray | None = None,
) -> pd.DataFrame:
    """Average precision of each profile: how high its positives rank above its negatives. Names are copairs'.

    Positives of a profile are the other rows equal in all of `pos_sameby` and different in each of `pos_diffby`,
    negatives those equal in `neg_sameby` and different in each of `neg_diffby`. AP is the mean over positives, in
    rank order, of i / (i + number of negatives above the i-th).

    Args:
        meta: (N, ...) metadata, one row a profile.
        feats: (N, D) features. float32 is compared in float32, everything else in float64.
        distance: cosine | abs_cosine | tanimoto (binary features) | absolute_difference (one feature).
        ties: 'expected' averages over the orders of tied profiles; 'copairs' puts tied positives first.
        multilabel_col: column of label lists. The result has a row per (profile, label); in `pos_sameby` it means
            "has this label", in `neg_diffby` "shares no label", in `neg_sameby` "shares a label".
        batch_size: queries compared at once; by default as many as keep a block near 48 MiB.
        queries: bool (N,), the profiles to score; by default all. Others stay positives and negatives.

    Returns:
        `meta` with n_pos_pairs, n_total_pairs, average_precision, normalized_average_precision (0 is chance) and
        tie_share (tied share of the positive-negative pairs). AP is NaN for rows without positives, and 1, which is
        chance too, for rows without negatives: scores and p-values are taken over `ranked` rows.

    Raises:
        ValueError: NaN, infinite or zero rows, missing metadata, or rules under which nothing pairs.
    """
    if ties not in ("expected", "copairs"):
        raise ValueError(f"ties={ties!r}: choose 'expected' or 'copairs'")
    if len(meta) != len(feats):
        raise ValueError(f"{len(meta)} rows of metadata and {len(feats)} of features: they must match")
    rules = (list(pos_sameby), list(pos_diffby), list(neg_sameby), list(neg_diffby))
    _check_columns(meta, rules, multilabel_col)
    measure = similarity(distance)
    features = measure.prepare(checked_features(feats, lambda row: _row_name(meta, row)))
    wanted = np.ones(len(meta), bool) if queries is None else np.asarray(queries, bool)
    counter = _Counter(features, measure, ties, batch_size)
    if multilabel_col is None:
        return _single_label(meta, rules, wanted, counter)
    from morphoclip.evaluation.ranking.multilabel import multilabel_average_precision

    return multilabel_average_precision(meta, rules, multilabel_col, wanted, counter)


def expected_average_precision(n_pos: np.ndarray, n_total: np.ndarray) -> np.ndarray:
    """Mean AP of random rankings of `n_pos` positives among `n_total`: [(k-1)(n-H_n)/(n-1) + H_n] / n."""
    k, n = np.asarray(n_pos, float), np.asarray(n_total, float)
    harmonic = _harmonic(np.asarray(n_total, np.int64))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = ((k - 1) * (n - harmonic) / (n - 1) + harmonic) / n
    return np.where(k == n, 1.0, value)


def ranked(ap: pd.DataFrame) -> pd.DataFrame:
    """The rows of an AP table that had something to rank: a query with at least one positive and one negative."""
    return ap[ap["average_precision"].notna() & (ap["n_total_pairs"] > ap["n_pos_pairs"])]


def row_codes(meta: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """int64 (N,): rows share a code exactly when they agree in all `columns` (all rows, when there are none)."""
    codes = np.zeros(len(meta), np.int64)
    for column in columns:
        values, uniques = pd.factorize(meta[column])
        codes = pd.factorize(codes * (len(uniques) + 1) + values)[0]
    return codes


@dataclass
class _Counter:
    """Ranks positives among negatives, a block of queries at a time."""

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
        beside = np.zeros(positives.shape, bool)  # tied with another positive
        with np.errstate(invalid="ignore"):
            beside[:, 1:] = positives[:, :-1] - positives[:, 1:] <= self.tolerance
        beside[:, :-1] |= beside[:, 1:]
        rows, places = np.nonzero((tied > 0) & ~beside)
        rank, t = places + above[rows, places], 1 + tied[rows, places]
        precision[rows, places] = (places + 1) * (_harmonic(rank + t) - _harmonic(rank)) / t
        rows, places = np.nonzero((tied > 0) & beside)
        precision[rows, places] = self._expected_precision(positives, rows, places, above, tied)

    def _expected_precision(
        self, positives: np.ndarray, rows: np.ndarray, places: np.ndarray, above: np.ndarray, tied: np.ndarray
    ) -> np.ndarray:
        """The share of the positives (Q, P; best first) at (rows, places) in the precision expected over orders of ties.

        A block of p positives and m negatives has T = p + m places, below a positives and b negatives. Place t holds a
        positive with chance p / T, and then (t - 1)(p - 1)/(T - 1) others of the block are expected before it, so the
        block's sum of precisions is (p/T) sum_t [a + 1 + (t - 1)(p - 1)/(T - 1)] / (a + b + t); one positive gets 1/p.
        Sums over t are differences of harmonic numbers.
        """
        first, last = np.empty((2, len(rows)), np.int64)
        tolerance = positives.dtype.type(self.tolerance)
        ends = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows))
        for start, end in pairwise([0, *ends] if len(rows) else []):
            ascending = -positives[rows[start]]
            tie = ascending[places[start:end]]
            first[start:end] = ascending.searchsorted(tie - tolerance)
            last[start:end] = ascending.searchsorted(tie + tolerance, "right")
        p, t = last - first, last - first + tied[rows, places]
        rank = first + above[rows, places]
        reciprocals = _harmonic(rank + t) - _harmonic(rank)
        return ((first + 1) * reciprocals + (p - 1) / (t - 1) * (t - (rank + 1) * reciprocals)) / t


def _count_from(
    negatives: np.ndarray, positives: np.ndarray, n_pos: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """How many negatives of its row lie above each positive, and how many above or tied; int64 (Q, P), 0 for padding."""
    above, from_here = np.zeros(positives.shape, np.int64), np.zeros(positives.shape, np.int64)
    upper, lower = positives + positives.dtype.type(tolerance), positives - positives.dtype.type(tolerance)
    width = negatives.shape[1]
    scan = width > _SCAN_RATIO * positives.shape[1]  # few positives: scanning beats sorting

    def scanned(row: int) -> None:
        for i in range(n_pos[row]):
            above[row, i] = np.count_nonzero(negatives[row] > upper[row, i])
            from_here[row, i] = np.count_nonzero(negatives[row] >= lower[row, i])

    def searched(row: int) -> None:
        values, k = negatives[row], n_pos[row]
        below = values.searchsorted(upper[row, :k], "right")
        above[row, :k] = from_here[row, :k] = width - below
        tied = (values[below - 1] >= lower[row, :k]).nonzero()[0]  # where below is 0 the search finds none
        if len(tied):
            from_here[row, tied] = width - values.searchsorted(lower[row, tied])

    def count(rows: slice) -> None:
        if not scan:
            negatives[rows].sort(axis=1)
        for row in range(rows.start, rows.stop):
            (scanned if scan else searched)(row)

    # numpy sorts and searches without the GIL: two threads, each a few rows at a time, as many as its cache holds
    size = max(1, _CACHE_BYTES // max(1, width * negatives.itemsize))
    parts = [slice(start, min(start + size, len(negatives))) for start in range(0, len(negatives), size)]
    if len(parts) < 2:
        for part in parts:
            count(part)
    else:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(count, parts))
    return above, from_here


@cache
def _harmonic_numbers(n: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, n + 1))])


def _harmonic(n: np.ndarray) -> np.ndarray:
    return _harmonic_numbers(1 << int(n.max(initial=1)).bit_length())[n]


def _single_label(
    meta: pd.DataFrame, rules: tuple[list[str], ...], wanted: np.ndarray, counter: _Counter
) -> pd.DataFrame:
    pos_sameby, pos_diffby, neg_sameby, neg_diffby = rules
    positives = _Positives(row_codes(meta, pos_sameby), [row_codes(meta, [c]) for c in pos_diffby])
    n_pos = positives.counts()
    ap = np.where(wanted & (n_pos > 0), 1.0, np.nan)  # stays 1 where there is no negative
    tied = np.zeros(len(meta), np.int64)
    n_neg = np.zeros(len(meta), np.int64)
    for rows, columns, excluded in _negative_blocks(meta, neg_sameby, neg_diffby):
        n_neg[rows] = len(columns) if excluded is None else len(columns) - excluded.sizes(rows)
        rows = rows[wanted[rows] & (n_pos[rows] > 0) & (n_neg[rows] > 0)]
        rows = rows[np.argsort(positives.codes[rows], kind="stable")]
        for batch in counter.batches(rows, max(len(columns), int(n_pos[rows].max(initial=0)))):
            block = counter.similarities(batch, columns)
            if excluded is not None:
                excluded.mask(block, batch)
            ap[batch], tied[batch] = counter.rank(positives.similarities(batch, counter), n_pos[batch], block)
    return _result(meta, np.arange(len(meta)), n_pos, n_neg, ap, tied, wanted)


def _result(
    meta: pd.DataFrame,
    rows: np.ndarray,
    n_pos: np.ndarray,
    n_neg: np.ndarray,
    ap: np.ndarray,
    tied: np.ndarray,
    wanted: np.ndarray,
) -> pd.DataFrame:
    """`meta` at `rows` with copairs' columns; rules under which no query has both kinds of pair are an error."""
    paired = (n_pos > 0) & (n_neg > 0)
    if not (paired & wanted[rows]).any():
        lacking = "positive" if not (n_pos[wanted[rows]] > 0).any() else "negative"
        raise ValueError(f"no profile has a {lacking} pair under these rules: check the sameby and diffby columns")
    chance = expected_average_precision(n_pos, n_pos + n_neg)
    with np.errstate(divide="ignore", invalid="ignore"):
        normalized = np.where(ap == chance, 0.0, (ap - chance) / (1 - chance))  # all positives: chance is 1
        tie_share = tied / (n_pos * n_neg)
    return meta.iloc[rows].assign(
        n_pos_pairs=n_pos,
        n_total_pairs=n_pos + n_neg,
        average_precision=ap,
        normalized_average_precision=normalized,
        tie_share=tie_share,
    )


@dataclass
class _Positives:
    """Groups of rows that share `pos_sameby`, less those that agree in a `pos_diffby` column."""

    codes: np.ndarray
    different: list[np.ndarray]

    def __post_init__(self) -> None:
        self.order = np.argsort(self.codes, kind="stable")
        self.starts = np.searchsorted(self.codes[self.order], np.arange(self.codes.max(initial=-1) + 2))

    def members(self, code: int) -> np.ndarray:
        return self.order[self.starts[code] : self.starts[code + 1]]

    def counts(self) -> np.ndarray:
        """Positives of each row, the row itself left out."""
        if not self.different:
            return np.bincount(self.codes)[self.codes] - 1
        counts = np.zeros(len(self.codes), np.int64)
        for code in range(len(self.starts) - 1):
            members = self.members(code)
            for batch in np.array_split(members, 1 + len(members) ** 2 // 10**7):
                counts[batch] = self._allowed(batch, members).sum(axis=1)
        return counts

    def similarities(self, batch: np.ndarray, counter: _Counter) -> np.ndarray:
        """(B, P) similarities of a batch, sorted by code, to its positives; padding is -inf."""
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
class _Excluded:
    """Rows of a block that are no negatives of a query: itself and those equal to it in a `neg_diffby` column."""

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
        """(places in `rows`, excluded places in `columns`) for rows that exclude the same."""
        keys = np.stack([codes[rows] for codes in self.different] or [rows])
        _, inverse = np.unique(keys, axis=1, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1):
            yield places, self._rows(rows[places[0]])

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        sizes = np.zeros(len(rows), np.int64)
        for places, excluded in self._groups(rows):
            sizes[places] = len(excluded)
        return sizes

    def mask(self, block: np.ndarray, rows: np.ndarray) -> None:
        for places, excluded in self._groups(rows):
            block[places[:, None], excluded] = -np.inf


def _negative_blocks(
    meta: pd.DataFrame, sameby: list[str], diffby: list[str]
) -> Iterator[tuple[np.ndarray, np.ndarray, _Excluded | None]]:
    """(queries, candidate negatives, which candidates to leave out) so that each row is a query once.

    Few classes of queries (treated against controls): each gets exactly its negatives. Many (all against all):
    the queries share all rows of the block as candidates, less the few they exclude.
    """
    different = [row_codes(meta, [column]) for column in diffby]
    same = row_codes(meta, sameby)
    order = np.argsort(same, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(same[order])) + 1):
        classes = row_codes(meta.iloc[rows], diffby)
        if not diffby or classes.max() >= _FEW_CLASSES:
            yield rows, rows, _Excluded(rows, different)
            continue
        for label in range(classes.max() + 1):
            queries = rows[classes == label]
            allowed = np.logical_and.reduce([codes[rows] != codes[queries[0]] for codes in different])
            yield queries, rows[allowed], None


def _check_columns(meta: pd.DataFrame, rules: tuple[list[str], ...], multilabel_col: str | None) -> None:
    columns = list(dict.fromkeys(column for rule in rules for column in rule))
    absent = [c for c in columns if c not in meta]
    if absent:
        raise ValueError(f"metadata has no column {absent}: its columns are {list(meta.columns)}")
    if multilabel_col is not None and multilabel_col not in columns:
        raise ValueError(f"multilabel_col={multilabel_col!r} is in none of the sameby and diffby rules")
    for column in columns:
        if column != multilabel_col and meta[column].isna().any():
            raise ValueError(f"metadata column {column} has {int(meta[column].isna().sum())} missing values: fill them")
    for same, different in ((rules[0], rules[1]), (rules[2], rules[3])):
        if set(same) & set(different):
            raise ValueError(f"{sorted(set(same) & set(different))} cannot be both equal and different")
        if not same and not different:
            raise ValueError("positives and negatives each need at least one sameby or diffby column")


def _row_name(meta: pd.DataFrame, row: int) -> str:
    columns = [c for c in ("Metadata_Plate", "Metadata_Well", "Metadata_perturbation") if c in meta]
    return " ".join(str(meta[c].iloc[row]) for c in columns) or f"row {row}"
