"""Average precision of every profile, by counting the negatives above each positive without listing pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.candidates import Positives, negative_blocks, row_codes
from morphoclip.evaluation.ranking.counter import Counter
from morphoclip.evaluation.ranking.multilabel import multilabel_average_precision
from morphoclip.evaluation.ranking.rules import Rules
from morphoclip.evaluation.ranking.similarity import checked_features, similarity
from morphoclip.evaluation.ranking.table import ap_table, row_name


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
    """Average precision of each profile: how high its positives rank among its negatives. Names are those of copairs.

    Positives of a profile are the other rows equal in all of `pos_sameby` and different in each of `pos_diffby`;
    negatives are those equal in `neg_sameby` and different in each of `neg_diffby`. AP is the mean over positives, in
    rank order, of i / (i + number of negatives above the i-th).

    Args:
        meta: (N, ...) metadata, one row per profile.
        feats: (N, D) features. float32 is compared in float32, any other type in float64.
        distance: cosine | abs_cosine | tanimoto (binary features) | absolute_difference (one feature).
        ties: 'expected' averages over the orders of tied profiles; 'copairs' ranks tied positives first.
        multilabel_col: column of label lists. The result has a row per (profile, label); in `pos_sameby` it means
            "has this label", in `neg_diffby` "shares no label", in `neg_sameby` "shares a label".
        batch_size: queries compared at once; by default as many as give a block of about 48 MiB.
        queries: bool (N,), the profiles to score; by default all. Others stay positives and negatives.

    Returns:
        `meta` with n_pos_pairs, n_total_pairs, average_precision, normalized_average_precision (0 is chance) and
        tie_share (fraction of tied positive-negative pairs). AP is NaN for rows without positives, and 1 (which is
        also chance) for rows without negatives; scores and p-values use `ranked` rows only.

    Raises:
        ValueError: NaN, infinite or zero rows, missing metadata, or rules that give no pairs.
    """
    if ties not in ("expected", "copairs"):
        raise ValueError(f"ties={ties!r}: choose 'expected' or 'copairs'")
    if len(meta) != len(feats):
        raise ValueError(f"{len(meta)} rows of metadata and {len(feats)} of features: they must match")
    positives, negatives = (tuple(pos_sameby), tuple(pos_diffby)), (tuple(neg_sameby), tuple(neg_diffby))
    rules = Rules(*positives, *negatives, distance=distance, multilabel_col=multilabel_col)
    rules.check(meta)
    measure = similarity(distance)
    features = measure.prepare(checked_features(feats, lambda row: row_name(meta, row)))
    wanted = np.ones(len(meta), bool) if queries is None else np.asarray(queries, bool)
    counter = Counter(features, measure, ties, batch_size)
    if multilabel_col is None:
        return _single_label(meta, rules, wanted, counter)
    return multilabel_average_precision(meta, rules, wanted, counter)


def _single_label(meta: pd.DataFrame, rules: Rules, wanted: np.ndarray, counter: Counter) -> pd.DataFrame:
    positives = Positives(row_codes(meta, rules.pos_sameby), [row_codes(meta, [c]) for c in rules.pos_diffby])
    n_pos = positives.counts()
    ap = np.where(wanted & (n_pos > 0), 1.0, np.nan)  # stays 1 without negatives
    tied = np.zeros(len(meta), np.int64)
    n_neg = np.zeros(len(meta), np.int64)
    for rows, columns, excluded in negative_blocks(meta, rules.neg_sameby, rules.neg_diffby):
        n_neg[rows] = len(columns) if excluded is None else len(columns) - excluded.sizes(rows)
        rows = rows[wanted[rows] & (n_pos[rows] > 0) & (n_neg[rows] > 0)]
        rows = rows[np.argsort(positives.codes[rows], kind="stable")]
        for batch in counter.batches(rows, max(len(columns), int(n_pos[rows].max(initial=0)))):
            block = counter.similarities(batch, columns)
            if excluded is not None:
                excluded.mask(block, batch)
            ap[batch], tied[batch] = counter.rank(positives.similarities(batch, counter), n_pos[batch], block)
    return ap_table(meta, np.arange(len(meta)), n_pos, n_neg, ap, tied, wanted)
