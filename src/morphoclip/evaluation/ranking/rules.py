"""The rules of a comparison: which rows are positives and negatives, and the similarity."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Rules:
    """The rules of `average_precision`.

    Attributes:
        pos_sameby, pos_diffby: positives equal the query in all of the former and differ in each of the latter.
        neg_sameby, neg_diffby: the same for negatives.
        sameby: columns that define a group of queries; the group's score is their mean AP.
        distance: a name of `SIMILARITIES`.
        multilabel_col: column of label lists among the rules, see `average_precision`.
        exchange_within: columns within whose values the null exchanges rows; default: `neg_sameby`.
        units: columns whose equal rows keep their labels together when the null permutes labels.
    """

    pos_sameby: tuple[str, ...]
    pos_diffby: tuple[str, ...]
    neg_sameby: tuple[str, ...]
    neg_diffby: tuple[str, ...]
    sameby: tuple[str, ...] = ()
    distance: str = "cosine"
    multilabel_col: str | None = None
    exchange_within: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    def check(self, meta: pd.DataFrame) -> None:
        """Raise ValueError if `meta` lacks a column or a value, or if the rules contradict each other."""
        columns = list(dict.fromkeys([*self.pos_sameby, *self.pos_diffby, *self.neg_sameby, *self.neg_diffby]))
        absent = [c for c in columns if c not in meta]
        if absent:
            raise ValueError(f"metadata has no column {absent}: its columns are {list(meta.columns)}")
        if self.multilabel_col is not None and self.multilabel_col not in columns:
            raise ValueError(f"multilabel_col={self.multilabel_col!r} is in none of the sameby and diffby rules")
        for column in columns:
            if column != self.multilabel_col and meta[column].isna().any():
                raise ValueError(
                    f"metadata column {column} has {int(meta[column].isna().sum())} missing values: fill them"
                )
        for same, different in ((self.pos_sameby, self.pos_diffby), (self.neg_sameby, self.neg_diffby)):
            if set(same) & set(different):
                raise ValueError(f"{sorted(set(same) & set(different))} cannot be in both a sameby and a diffby rule")
            if not same and not different:
                raise ValueError("positives and negatives each need at least one sameby or diffby column")
