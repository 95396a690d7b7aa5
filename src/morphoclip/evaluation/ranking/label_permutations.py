"""Null scores of labels under permutations of whole label sets over the profiles."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.candidates import row_codes
from morphoclip.evaluation.ranking.multilabel import label_incidence
from morphoclip.evaluation.ranking.pseudo_groups import CHUNK
from morphoclip.evaluation.ranking.rules import Rules
from morphoclip.evaluation.ranking.similarity import Similarity, tie_tolerance
from morphoclip.progress import counted


def label_nulls(
    meta: pd.DataFrame, rules: Rules, features: np.ndarray, measure: Similarity, draws: int, seed: int
) -> dict[object, tuple[float, np.ndarray]]:
    """Label -> (score, null) under permutations of whole label sets over profiles, within each side (modality, batch).

    Candidates of a query are the other rows that differ from it in each column of `pos_diffby`. Rows of one of the rules'
    units keep their labels together: units are exchanged with those that have as many rows on each side. Only the ranks
    of the candidates that share a label with the query are needed: the number of negatives above a positive is its rank
    minus the number of such candidates above it.
    """
    similarities = measure.block(features, features)
    key = similarities.sum(axis=1)
    within = [c for c in (*rules.pos_diffby, *rules.exchange_within) if c not in rules.units]
    side = row_codes(meta, within)
    order = np.lexsort([key, side])
    similarities, side = similarities[np.ix_(order, order)], side[order]
    incidence, labels = label_incidence(meta[rules.pos_sameby[0]].iloc[order])
    rng = np.random.default_rng([seed, len(side), len(labels)])
    slots = np.arange(len(side))
    permuted = np.tile(slots, (draws + 1, 1))  # row 0 is the observed assignment
    unit = row_codes(meta.iloc[order], rules.units) if rules.units else slots
    for block in _exchangeable(unit, side):  # (units, rows of each)
        permuted[1:, block] = block[rng.permuted(np.tile(np.arange(len(block)), (draws, 1)), axis=1)]
    allowed = slots[:, None] != slots
    for column in rules.pos_diffby:
        codes = row_codes(meta.iloc[order], [column])
        allowed &= codes[:, None] != codes
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
        found: dict[int, np.ndarray] = {int(label): np.empty(draws + 1) for label in mine}
        for start in range(0, draws + 1, step := max(1, CHUNK // len(sharers))):
            part = permuted[start : start + step]
            seen = ranks[part[:, slot][:, None], part[:, sharers]]  # (draws, sharers)
            best_first = np.argsort(seen, axis=1, kind="stable")
            above = np.take_along_axis(seen, best_first, axis=1) - np.arange(len(sharers))
            np.maximum(above, 0, out=above)
            for label in mine:
                positive = has[sharers, label][best_first]
                hits = np.cumsum(positive, axis=1)
                precision = np.where(positive, hits / np.maximum(hits + above, 1), 0).sum(axis=1)
                found[int(label)][start : start + step] = precision / hits[:, -1]
        return found

    totals: dict[int, np.ndarray] = {}
    queries: dict[int, int] = {}
    with ThreadPoolExecutor(2) as threads:
        for found in counted(threads.map(precisions, slots), unit="profile", total=len(slots)):
            for label, precision in found.items():
                totals[label] = totals.get(label, 0) + precision
                queries[label] = queries.get(label, 0) + 1
    means = {label: total / queries[label] for label, total in totals.items()}
    return {labels[label]: (float(mean[0]), mean[1:].astype(np.float32)) for label, mean in means.items()}


def _exchangeable(unit: np.ndarray, side: np.ndarray) -> list[np.ndarray]:
    """Units that may be exchanged, a matrix (units, rows of each unit, ordered by side) for each kind of them."""
    kinds: dict[tuple, list[np.ndarray]] = {}
    order = np.lexsort([side, unit])
    for rows in np.split(order, np.flatnonzero(np.diff(unit[order])) + 1):
        kinds.setdefault(tuple(side[rows]), []).append(rows)
    return [
        np.sort(np.stack(kinds[kind]), axis=0) if len(kind) == 1 else np.stack(kinds[kind]) for kind in sorted(kinds)
    ]


def _candidate_ranks(similarities: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """float32 (N, N): the number of a query's (row's) other candidates ranked above the column; ties count half."""
    tolerance = similarities.dtype.type(tie_tolerance(similarities.dtype))
    ranks = np.zeros(similarities.shape, np.float32)
    for i, row in enumerate(similarities):
        values = np.sort(row[allowed[i]])
        above = len(values) - values.searchsorted(row + tolerance, "right")
        from_here = len(values) - values.searchsorted(row - tolerance)
        ranks[i] = (above + from_here - 1) / 2  # the column is tied with itself
    return ranks
