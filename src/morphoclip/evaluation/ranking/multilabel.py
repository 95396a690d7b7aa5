"""Average precision for profiles with several labels: one query per (profile, label)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from morphoclip.evaluation.ranking.candidates import row_codes
from morphoclip.evaluation.ranking.counter import Counter
from morphoclip.evaluation.ranking.rules import Rules
from morphoclip.evaluation.ranking.table import ap_table


def multilabel_average_precision(
    meta: pd.DataFrame, rules: Rules, wanted: np.ndarray, counter: Counter
) -> pd.DataFrame:
    """`average_precision` with label lists in `rules.multilabel_col`; see there.

    Returns:
        One row per (profile, label) with at least one positive, ordered by label, then profile; `label_col` holds the
        label.

    Raises:
        ValueError: `label_col` is not in `pos_sameby`, or holds something other than lists.
    """
    label_col = rules.multilabel_col
    if label_col is None or label_col not in rules.pos_sameby:
        raise ValueError(f"multilabel_col={label_col!r} must be in pos_sameby: positives share a label")
    incidence, labels = label_incidence(meta[label_col])
    other = [c for c in rules.pos_sameby if c != label_col]
    pos_same = row_codes(meta, other)
    pos_diff = [row_codes(meta, [c]) for c in rules.pos_diffby]
    neg_same = row_codes(meta, [c for c in rules.neg_sameby if c != label_col])
    neg_diff = [row_codes(meta, [c]) for c in rules.neg_diffby if c != label_col]
    everyone = np.arange(len(meta))

    rows, keys, counts, values = [], [], [], []
    for batch in counter.batches(everyone, 2 * len(meta)):
        shared = (incidence[batch] @ incidence.T).toarray() > 0
        negative = neg_same[batch][:, None] == neg_same
        for codes in neg_diff:
            negative &= codes[batch][:, None] != codes
        if label_col in rules.neg_diffby:
            negative &= ~shared
        elif label_col in rules.neg_sameby:
            negative &= shared
        negative[np.arange(len(batch)), batch] = False
        block = counter.similarities(batch, everyone)
        query, label = incidence[batch].nonzero()  # one query per (profile of the batch, label)
        positive = (incidence[:, label].T.toarray() > 0) & (pos_same[batch[query]][:, None] == pos_same)
        for codes in pos_diff:
            positive &= codes[batch[query]][:, None] != codes
        positive[np.arange(len(query)), batch[query]] = False
        n_pos, n_neg = positive.sum(axis=1), negative[query].sum(axis=1)
        ap = np.where(n_pos > 0, 1.0, np.nan)  # stays 1 without negatives
        tied = np.zeros(len(query), np.int64)
        ranked = (n_pos > 0) & (n_neg > 0) & wanted[batch[query]]
        if ranked.any():
            ap[ranked], tied[ranked] = counter.rank(
                _pack(block[query[ranked]], positive[ranked]),
                n_pos[ranked],
                np.where(negative, block, -np.inf).astype(block.dtype)[query[ranked]],
            )
        rows.append(batch[query])
        keys.append(label)
        counts.append(np.stack([n_pos, n_neg]))
        values.append(np.stack([ap, tied]))
    row, key = np.concatenate(rows), np.concatenate(keys)
    n_pos, n_neg = np.concatenate(counts, axis=1)
    ap, tied = np.concatenate(values, axis=1)
    kept = np.flatnonzero((n_pos > 0) & wanted[row])
    kept = kept[np.lexsort([row[kept], key[kept]])]
    table = ap_table(meta, row[kept], n_pos[kept], n_neg[kept], ap[kept], tied[kept], wanted)
    return table.assign(**{label_col: labels[key[kept]]}).reset_index(drop=True)


def label_incidence(lists: pd.Series) -> tuple[csr_array, np.ndarray]:
    """0/1 matrix (N, L) and sorted labels (L,) of a column of label lists; repeats within a list count once."""
    for value in lists:
        if isinstance(value, str) or not hasattr(value, "__iter__"):
            raise ValueError(f"column {lists.name} holds {value!r}: each cell must be a list of labels")
    distinct = [sorted(set(value)) for value in lists]
    labels = np.array(sorted({label for value in distinct for label in value}), dtype=object)
    query = {label: i for i, label in enumerate(labels)}
    columns = np.array([query[label] for value in distinct for label in value], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(value) for value in distinct])])
    return csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(lists), len(labels))), labels


def _pack(block: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen values of each row, (Q, P), padded on the right with -inf."""
    counts = chosen.sum(axis=1)
    packed = np.full((len(block), int(counts.max())), -np.inf, block.dtype)
    packed[np.arange(packed.shape[1]) < counts[:, None]] = block[chosen]
    return packed
