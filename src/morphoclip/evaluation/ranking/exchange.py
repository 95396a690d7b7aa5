"""Exchange test: p-values that are valid under noise, from pseudo-groups drawn by exchange.

Members of a group share pair scores, so their average precisions are dependent and a null of independent rankings is
not valid. Here the null repeats the whole computation on rows that are exchangeable with the group without signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.candidates import row_codes
from morphoclip.evaluation.ranking.label_permutations import label_nulls
from morphoclip.evaluation.ranking.pseudo_groups import Controls, Everyone, Pool
from morphoclip.evaluation.ranking.rules import Rules
from morphoclip.evaluation.ranking.significance import check_draws, with_q
from morphoclip.evaluation.ranking.similarity import checked_features, similarity
from morphoclip.evaluation.ranking.table import ranked
from morphoclip.progress import counted

NEGATIVES, LABELS, OTHERS = "negatives", "labels", "others"
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
    exchange_within: Sequence[str] = (),
    draws: int = 10_000,
    distance: str = "cosine",
    seed: int = 0,
    queries: np.ndarray | None = None,
    threshold: float = 0.05,
) -> pd.DataFrame:
    """Mean average precision of each group with a p-value valid under noise; rules as in `average_precision`.

    p = (1 + #{null >= score}) / (1 + draws), where the null recomputes the group's score on pseudo-groups:

    Args:
        sameby: columns that define a group; the same as `pos_sameby`.
        exchange_with: 'negatives' draws, on each plate, as many rows as the group has there from the group's rows and
            the rows it is ranked against; the rest are the negatives. 'others' permutes the groups' labels over all
            rows of a plate: for groups ranked against each other. 'labels' permutes whole label sets over the rows,
            within each value of `pos_diffby`; `sameby` then holds lists of labels.
        exchange_within: columns that define a plate; default: `neg_sameby`.
        draws: number of pseudo-groups per group.
        queries: bool (N,), rows that are queries; default: all. The other rows of a group are only positives.

    Returns:
        One row per group: `sameby`, mean_average_precision, null_mean, p_value, corrected_p_value (Benjamini-Hochberg),
        below_p, below_corrected_p. `.attrs` holds p_convention and smallest_p. The draws depend on seed and data only,
        not on row order or plate names.

    Raises:
        ValueError: as `average_precision`, or the rules do not fit `exchange_with`.
    """
    four = (tuple(pos_sameby), tuple(pos_diffby), tuple(neg_sameby), tuple(neg_diffby))
    multilabel = pos_sameby[0] if exchange_with == LABELS else None
    ap = average_precision(meta, feats, *four, distance=distance, multilabel_col=multilabel, queries=queries)
    rules = Rules(*four, tuple(sameby), distance, multilabel, tuple(exchange_within))
    nulls = exchange_nulls(meta, feats, rules, exchange_with=exchange_with, draws=draws, seed=seed, queries=queries)
    return exchange_table(ranked(ap), [nulls], list(sameby), threshold)


Nulls = dict[object, tuple[float, np.ndarray]]


def exchange_nulls(
    meta: pd.DataFrame,
    feats: np.ndarray,
    rules: Rules,
    *,
    exchange_with: str,
    draws: int,
    seed: int = 0,
    queries: np.ndarray | None = None,
) -> Nulls:
    """Group -> (its score, float32 (draws,) scores of its pseudo-groups). Arguments as in `exchange_test`."""
    check_draws("draws", draws)
    measure = similarity(rules.distance)
    pos_sameby, neg_diffby = rules.pos_sameby, rules.neg_diffby
    features = measure.prepare(checked_features(feats))
    if exchange_with == LABELS:
        if rules.neg_sameby or neg_diffby != (*pos_sameby, *rules.pos_diffby) or len(pos_sameby) != 1:
            raise ValueError(
                "exchange_with='labels' needs pos_sameby=[labels], no neg_sameby and neg_diffby=[labels, *pos_diffby]"
            )
        return label_nulls(meta, rules, features, measure, draws, seed)
    if exchange_with not in (NEGATIVES, OTHERS):
        raise ValueError(f"exchange_with={exchange_with!r}: choose {NEGATIVES!r}, {OTHERS!r} or {LABELS!r}")
    wanted = np.ones(len(meta), bool) if queries is None else np.asarray(queries, bool)
    stratum = row_codes(meta, rules.neg_sameby)
    plate = row_codes(meta, rules.exchange_within or rules.neg_sameby)
    different = [row_codes(meta, [column]) for column in neg_diffby]
    apart = [row_codes(meta, [column]) for column in rules.pos_diffby]
    keys = list(pos_sameby) if len(pos_sameby) > 1 else pos_sameby[0]
    if exchange_with == OTHERS:
        everyone = Everyone(features, measure, plate, apart, seed)
        return _nulls_among_others(meta, feats, rules, everyone, plate, wanted, draws, seed)
    pools: dict[bytes, Controls] = {}
    groups: list[tuple[object, np.ndarray, Controls]] = []
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
            pools[rows.tobytes()] = Controls(rows, stratum[rows], plate[rows], features, measure)
        groups.append((name, members, pools[rows.tobytes()]))

    def test(group: tuple[object, np.ndarray, Controls]) -> tuple[object, tuple[float, np.ndarray] | None]:
        name, members, controls = group
        pool = Pool(controls, members, stratum[members], plate[members], wanted[members], apart)
        score = float(pool.scores(pool.group[None])[0])
        return name, (score, pool.draw(draws, seed, str(name))) if np.isfinite(score) else None

    with ThreadPoolExecutor(2) as threads:
        tested = counted(threads.map(test, groups), unit="group", total=len(groups))
        return {name: found for name, found in tested if found is not None}


def _nulls_among_others(
    meta: pd.DataFrame,
    feats: np.ndarray,
    rules: Rules,
    everyone: Everyone,
    plate: np.ndarray,
    wanted: np.ndarray,
    draws: int,
    seed: int,
) -> Nulls:
    """Nulls of groups ranked against each other; groups of one composition (members and queries on a plate) share one."""
    four = (rules.pos_sameby, rules.pos_diffby, rules.neg_sameby, rules.neg_diffby)
    ap = ranked(average_precision(meta, feats, *four, distance=rules.distance, queries=wanted))
    keys = list(rules.pos_sameby) if len(rules.pos_sameby) > 1 else rules.pos_sameby[0]
    scores = ap.groupby(keys, sort=True)["average_precision"].mean()
    drawn: dict[tuple, np.ndarray] = {}
    nulls: Nulls = {}
    for name, members in meta.reset_index(drop=True).groupby(keys, sort=True).indices.items():
        if name in scores.index:
            composition = tuple(sorted(zip(plate[members], wanted[members], strict=True)))
            if composition not in drawn:
                drawn[composition] = everyone.composed(plate[members], wanted[members]).draw(draws, seed, "")
            nulls[name] = (float(scores[name]), drawn[composition])
    return nulls


def exchange_table(ap: pd.DataFrame, folds: Sequence[Nulls], sameby: list[str], threshold: float) -> pd.DataFrame:
    """Groups with p and q from their AP rows and nulls.

    Over the folds of a cross-fit scores are averaged, and nulls are averaged after sorting each fold's: this is the
    widest null, as if the folds were fully dependent.
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


def exchange_questions(
    questions: Sequence, rows: pd.DataFrame, draws: int, threshold: float, seed: int
) -> pd.DataFrame:
    """`exchange_table` for the folds of one question of a task; `rows` are the AP rows of all folds."""
    rules = questions[0].rules
    others = OTHERS if set(rules.pos_sameby) & set(rules.neg_diffby) else NEGATIVES
    how = others if rules.multilabel_col is None else LABELS
    folds = [
        exchange_nulls(q.meta, q.feats, q.rules, exchange_with=how, draws=draws, seed=seed, queries=q.queries)
        for q in questions
    ]
    return exchange_table(rows, folds, list(rules.sameby), threshold)
