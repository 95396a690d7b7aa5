"""p-values that hold under noise: pseudo-groups drawn by exchange, similarities computed once (EVALUATION §2).

Members of a group share pair scores, so their average precisions are dependent and no null of independent rankings is
valid. Here the null repeats the whole computation on rows that, without signal, could as well have been the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from zlib import crc32

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.average_precision import average_precision, ranked, row_codes
from morphoclip.evaluation.ranking.multilabel import label_incidence
from morphoclip.evaluation.ranking.significance import check_draws, with_q
from morphoclip.evaluation.ranking.similarity import Similarity, checked_features, similarity, tie_tolerance

NEGATIVES, LABELS = "negatives", "labels"
_CHUNK = 2**22
_EQUAL = 1e-9


def exchange_test(
    meta: pd.DataFrame,
    feats: np.ndarray,
    pos_sameby: Sequence[str],
    pos_diffby: Sequence[str],
    neg_sameby: Sequence[str],
    neg_diffby: Sequence[str],
    sameby: Sequence[str],
    *,
    exchange_with: str,
    draws: int = 10_000,
    distance: str = "cosine",
    seed: int = 0,
    queries: np.ndarray | None = None,
    threshold: float = 0.05,
) -> pd.DataFrame:
    """Mean average precision of each group with a p-value valid under noise; rules as in `average_precision`.

    p = (1 + #{null >= score}) / (1 + draws), where the null recomputes the group's score on pseudo-groups:

    Args:
        sameby: what a group shares; the same columns as `pos_sameby`.
        exchange_with: 'negatives' draws, in each `neg_sameby` stratum (plate), as many rows as the group has there from
            the group's rows and the rows it is ranked against; the rest are the negatives. 'labels' permutes whole
            label sets over the rows, within each value of `pos_diffby`; `sameby` then holds lists of labels.
        draws: pseudo-groups a group.
        queries: bool (N,), rows that ask; default all. A group's other rows are there to be found.

    Returns:
        A row a group: `sameby`, mean_average_precision, null_mean, p_value, corrected_p_value (Benjamini-Hochberg),
        below_p, below_corrected_p. `.attrs` holds p_convention and smallest_p. Neither row order nor the names of
        plates change it: what is drawn depends on seed and data only.

    Raises:
        ValueError: as `average_precision`, or rules the chosen exchange does not fit.
    """
    rules = (list(pos_sameby), list(pos_diffby), list(neg_sameby), list(neg_diffby))
    multilabel = rules[0][0] if exchange_with == LABELS else None
    ap = average_precision(meta, feats, *rules, distance=distance, multilabel_col=multilabel, queries=queries)
    nulls = exchange_nulls(
        meta, feats, *rules, exchange_with=exchange_with, draws=draws, distance=distance, seed=seed, queries=queries
    )
    return exchange_table(ranked(ap), [nulls], list(sameby), threshold)


Nulls = dict[object, tuple[float, np.ndarray]]


def exchange_nulls(
    meta: pd.DataFrame,
    feats: np.ndarray,
    pos_sameby: Sequence[str],
    pos_diffby: Sequence[str],
    neg_sameby: Sequence[str],
    neg_diffby: Sequence[str],
    *,
    exchange_with: str,
    draws: int,
    distance: str = "cosine",
    seed: int = 0,
    queries: np.ndarray | None = None,
) -> Nulls:
    """Group -> (its score, float32 (draws,) scores of its pseudo-groups). Arguments as `exchange_test`."""
    check_draws("draws", draws)
    measure = similarity(distance)
    features = measure.prepare(checked_features(feats))
    if exchange_with == LABELS:
        if list(neg_sameby) or list(neg_diffby) != [*pos_sameby, *pos_diffby] or len(pos_sameby) != 1:
            raise ValueError(
                "exchange_with='labels' needs pos_sameby=[labels], no neg_sameby and neg_diffby=[labels, *pos_diffby]"
            )
        return _label_nulls(meta[pos_sameby[0]], row_codes(meta, pos_diffby), features, measure, draws, seed)
    if exchange_with != NEGATIVES:
        raise ValueError(f"exchange_with={exchange_with!r}: choose {NEGATIVES!r} or {LABELS!r}")
    wanted = np.ones(len(meta), bool) if queries is None else np.asarray(queries, bool)
    stratum = row_codes(meta, neg_sameby)
    different = [row_codes(meta, [column]) for column in neg_diffby]
    apart = [row_codes(meta, [column]) for column in pos_diffby]
    keys = list(pos_sameby) if len(pos_sameby) > 1 else pos_sameby[0]
    pools: dict[bytes, _Controls] = {}
    groups: list[tuple[object, np.ndarray, _Controls]] = []
    for name, members in meta.reset_index(drop=True).groupby(keys, sort=True).indices.items():
        if not wanted[members].any():
            continue
        if any(len(np.unique(codes[members])) > 1 for codes in different):
            raise ValueError(f"group {name}: its rows differ in {list(neg_diffby)}, so they have different negatives")
        negative = np.isin(stratum, stratum[members])
        for codes in different:
            negative &= codes != codes[members[0]]
        rows = np.flatnonzero(negative)
        if len(members) < 2 or not len(rows):
            continue
        if rows.tobytes() not in pools:
            pools[rows.tobytes()] = _Controls(rows, stratum[rows], features, measure)
        groups.append((name, members, pools[rows.tobytes()]))

    def test(group: tuple[object, np.ndarray, _Controls]) -> tuple[object, tuple[float, np.ndarray] | None]:
        name, members, controls = group
        pool = _Pool(controls, members, stratum[members], wanted[members], apart)
        score = float(pool.scores(pool.group[None])[0])
        return name, (score, pool.draw(draws, seed, str(name))) if np.isfinite(score) else None

    with ThreadPoolExecutor(2) as threads:
        return {name: found for name, found in threads.map(test, groups) if found is not None}


def exchange_table(ap: pd.DataFrame, folds: Sequence[Nulls], sameby: list[str], threshold: float) -> pd.DataFrame:
    """Groups with p and q from their AP rows and nulls.

    Over the folds of a cross-fit scores are averaged, and nulls after sorting each: as if the folds agreed on which
    draws are high, which makes the null as wide as their dependence could.
    """
    grouped = ap.groupby(sameby, sort=True)["average_precision"]
    table = grouped.agg(mean_average_precision="mean", n_queries="size").reset_index()
    names = [
        key[0] if isinstance(key, tuple) and len(key) == 1 else key for key in table[sameby].itertuples(False, None)
    ]
    p, means = [], []
    for name in names:
        observed = np.mean([fold[name][0] for fold in folds])
        null = np.mean([np.sort(fold[name][1]) for fold in folds], axis=0)
        p.append((1 + int((null >= observed - _EQUAL).sum())) / (1 + len(null)))
        means.append(float(null.mean()))
    table = with_q(table.assign(null_mean=means, p_value=p), threshold)
    table.attrs = {"p_convention": "exact", "smallest_p": 1 / (1 + len(null))}
    return table


class _Controls:
    """The rows a group is ranked against: their similarities (M, M) and ranks among themselves, computed once.

    Rows are put in an order that depends on neither row order nor names: by how alike a row is to the others.
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
            places = np.flatnonzero(self.stratum == code)
            for i, place in enumerate(places):
                seen = self.similarities[place]
                values = np.sort(np.delete(seen[places], i))
                above = len(values) - values.searchsorted(seen + self.tolerance, "right")
                from_here = len(values) - values.searchsorted(seen - self.tolerance)
                self.ranks[place] = (above + from_here) / 2


class _Pool:
    """A group and the rows it is ranked against; every subset of the group's composition can be scored as the group.

    `ranks[u, v]` counts the rows of u's stratum, other than u, that u places above v; ties, v itself included, count
    half. Controls come first, then the group's members.
    """

    def __init__(
        self,
        controls: _Controls,
        members: np.ndarray,
        stratum: np.ndarray,
        asks: np.ndarray,
        apart: list[np.ndarray],
    ):
        block, features = controls.measure.block, controls.features
        across = block(features[members], features[controls.rows])
        order = np.argsort(across.sum(axis=1), kind="stable")
        members, stratum, asks, across = members[order], stratum[order], asks[order], across[order]
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
            for w in new:  # a member of the plate stands among the rows above, for all its controls
                self.ranks[old] += self._above(seen[:, [w]], seen)
            for w in self.group:  # a member as a positive: which controls of the plate stand above it
                ahead = self._above(seen[:, old], seen[:, [w]])
                self.ranks[old, w] += ahead.sum(axis=1) - np.diagonal(ahead)
            for w in new:
                others = np.concatenate([old, new[new != w]])
                self.ranks[w] = self._above(self.similarities[w, others][:, None], self.similarities[w]).sum(axis=0)
        strata.sort(key=lambda part: (len(part[1]), len(part[0]), part[2]))
        self.strata = [np.concatenate([old, new]) for old, new, _ in strata]
        self.counts = [len(new) for _, new, _ in strata]
        self.group = np.concatenate([new for _, new, _ in strata])
        self.asks = np.flatnonzero(asks[self.group - m])  # places in the group that are queries
        self.home = np.repeat(np.arange(len(self.counts)), self.counts)  # stratum of each member

    def _above(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        ahead = first - second
        return (ahead > self.tolerance) + np.float32(0.5) * (np.abs(ahead) <= self.tolerance)

    def draw(self, draws: int, seed: int, name: str) -> np.ndarray:
        """float32 (draws,) scores of random subsets with the group's composition; `name` sets groups' draws apart."""
        sizes = [len(rows) for rows in self.strata]
        rng = np.random.default_rng([seed, crc32(name.encode()), *sizes, *self.counts])
        scores = np.full(draws, np.nan)
        while (lacking := np.flatnonzero(np.isnan(scores))).size:  # no pair that `pos_diffby` allows: draw again
            chosen = zip(self.strata, self.counts, strict=True)
            drawn = np.concatenate([rows[_subsets(rng, lacking.size, k, len(rows))] for rows, k in chosen], axis=1)
            parts = np.array_split(drawn, 1 + drawn.size * len(self.group) // _CHUNK)
            scores[lacking] = np.concatenate([self.scores(part) for part in parts])
        return scores.astype(np.float32)

    def scores(self, members: np.ndarray) -> np.ndarray:
        """Mean AP (draws,) of pseudo-groups, `members` (draws, k) rows of the pool, stratum by stratum.

        What is drawn into the group from u's stratum is no negative of u and is taken off its ranks again.
        """
        k = members.shape[1]
        order = np.arange(1, k)
        total, number = np.zeros(len(members)), np.zeros(len(members))
        for i in self.asks:
            others = np.delete(np.arange(k), i)
            u, v = members[:, i], members[:, others]  # (draws,), (draws, k - 1)
            above = self.ranks[u[:, None], v]
            mates = others[self.home[others] == self.home[i]]
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


def _label_nulls(
    lists: pd.Series, side: np.ndarray, features: np.ndarray, measure: Similarity, draws: int, seed: int
) -> Nulls:
    """Label -> (score, null) under permutations of whole label sets over profiles, within each side (modality).

    Candidates of a query are the rows of the other side, or, with one side only, all other rows. Of a slot's sharers
    (candidates with a label in common) only the ranks among all candidates are needed: a positive's negatives above are
    its rank less the sharers above it.
    """
    similarities = measure.block(features, features)
    key = similarities.sum(axis=1)
    order = np.lexsort([key, side])
    similarities, side = similarities[np.ix_(order, order)], side[order]
    incidence, labels = label_incidence(lists.iloc[order])
    rng = np.random.default_rng([seed, len(side), len(labels)])
    places = np.arange(len(side))
    permuted = np.tile(places, (draws + 1, 1))  # row 0 is the observed placing
    for code in np.unique(side):
        columns = np.flatnonzero(side == code)
        permuted[1:, columns] = rng.permuted(permuted[1:, columns], axis=1)
    one_side = len(np.unique(side)) == 1
    allowed = places[:, None] != places if one_side else side[:, None] != side
    ranks = _candidate_ranks(similarities, allowed)
    sharing = ((incidence @ incidence.T).toarray() > 0) & allowed
    has = incidence.toarray().astype(bool)

    def precisions(slot: int) -> dict[int, np.ndarray]:
        """Label -> AP (draws + 1,) of the slot as a query for it."""
        sharers = np.flatnonzero(sharing[slot])
        mine = np.flatnonzero(has[slot])
        mine = mine[has[np.ix_(sharers, mine)].any(axis=0)] if len(sharers) else mine[:0]
        if allowed[slot].sum() == len(sharers) or not len(mine):
            return {}
        found = {label: np.empty(draws + 1) for label in mine}
        for start in range(0, draws + 1, step := max(1, _CHUNK // len(sharers))):
            part = permuted[start : start + step]
            seen = ranks[part[:, slot][:, None], part[:, sharers]]  # (draws, sharers)
            best_first = np.argsort(seen, axis=1, kind="stable")
            above = np.take_along_axis(seen, best_first, axis=1) - np.arange(len(sharers))
            np.maximum(above, 0, out=above)
            for label in mine:
                positive = has[sharers, label][best_first]
                hits = np.cumsum(positive, axis=1)
                precision = np.where(positive, hits / np.maximum(hits + above, 1), 0).sum(axis=1)
                found[label][start : start + step] = precision / hits[:, -1]
        return found

    totals: dict[int, np.ndarray] = {}
    queries: dict[int, int] = {}
    with ThreadPoolExecutor(2) as threads:
        for found in threads.map(precisions, places):
            for label, precision in found.items():
                totals[label] = totals.get(label, 0) + precision
                queries[label] = queries.get(label, 0) + 1
    means = {label: total / queries[label] for label, total in totals.items()}
    return {labels[label]: (float(mean[0]), mean[1:].astype(np.float32)) for label, mean in means.items()}


def _candidate_ranks(similarities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """float32 (N, N): of a query's (row's) candidates other than the column, how many it places above it; ties half."""
    tolerance = similarities.dtype.type(tie_tolerance(similarities.dtype))
    ranks = np.zeros(similarities.shape, np.float32)
    for i, row in enumerate(similarities):
        values = np.sort(row[allowed[i]])
        above = len(values) - values.searchsorted(row + tolerance, "right")
        from_here = len(values) - values.searchsorted(row - tolerance)
        ranks[i] = (above + from_here - 1) / 2  # the column is tied with itself
    return ranks


def exchange_questions(
    questions: Sequence, rows: pd.DataFrame, draws: int, threshold: float, seed: int
) -> pd.DataFrame:
    """`exchange_table` for the folds of one question of a task; `rows` are the AP rows of all folds."""
    folds = []
    for question in questions:
        rules = question.rules
        with_labels = rules.multilabel_col is not None
        folds.append(
            exchange_nulls(
                question.meta,
                question.feats,
                rules.pos_sameby,
                rules.pos_diffby,
                rules.neg_sameby,
                rules.neg_diffby,
                exchange_with=LABELS if with_labels else NEGATIVES,
                draws=draws,
                distance=rules.distance,
                seed=seed,
                queries=question.queries,
            )
        )
    return exchange_table(rows, folds, list(questions[0].rules.sameby), threshold)
