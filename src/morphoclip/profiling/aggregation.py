"""Crops to sites to wells to perturbations: pure functions of tables and streams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd

from morphoclip import schema

REDUCTIONS = {"mean": np.mean, "median": np.median}
WITHIN = {"batch": [schema.BATCH], "source": [schema.SOURCE], "all": []}


def reduce_runs(runs: Iterable[tuple[int, np.ndarray]], how: str = "mean") -> Iterator[tuple[int, np.ndarray]]:
    """Reduce each run of equal keys to one row, with one run in memory at a time.

    Args:
        runs: (key, rows (k, D)); equal keys must be adjacent.
        how: `mean` or `median`.

    Yields:
        (key, row (1, D) float64), which can be reduced again by a coarser key.
    """
    reduce = reduction(how)
    for key, group in groupby(runs, key=itemgetter(0)):
        rows = np.concatenate([part for _, part in group]).astype(np.float64)
        yield key, reduce(rows, axis=0, keepdims=True)


def reduction(how: str):
    """The reduction named `how`; ValueError if unknown."""
    if how not in REDUCTIONS:
        raise ValueError(f"aggregation {how!r}: use one of {sorted(REDUCTIONS)}")
    return REDUCTIONS[how]


def aggregate(table: pd.DataFrame, by: Sequence[str], how: str = "mean") -> pd.DataFrame:
    """One row per group of equal `by`: features are reduced, metadata kept if equal within the group, else blank.

    Args:
        table: `Metadata_*` columns and features.
        by: metadata columns; blanks count as a value.
        how: `mean` or `median`.

    Returns:
        Groups sorted by `by`; metadata columns (those of `by` first), then features with their dtype.

    Raises:
        ValueError: a column of `by` is absent, or unknown `how`.
    """
    reduction(how)
    by = list(by)
    if absent := [column for column in by if column not in table]:
        raise ValueError(f"cannot aggregate by {absent}: the table has {schema.split_columns(table)[0]}")
    metadata, features = schema.split_columns(table)
    carried = [column for column in metadata if column not in by]
    text = table[metadata].astype(object).where(table[metadata].notna(), "")
    groups = text.groupby(by, sort=True)
    known = (
        groups[carried].first().where(groups[carried].nunique() == 1, "") if carried else groups.size().to_frame()[[]]
    )
    code = groups.ngroup()
    reduced = table[features].groupby(code.to_numpy()).agg(how).astype(table[features].dtypes)
    return pd.concat([known.reset_index(), reduced.reset_index(drop=True)], axis=1)


def consensus(table: pd.DataFrame, within: str = "all", how: str = "median") -> pd.DataFrame:
    """One profile per perturbation (and modality, cell line, time, dose) within `batch`, `source` or `all` wells.

    Wells without a perturbation id are left out.

    Raises:
        ValueError: unknown `within` or `how`, or no Metadata_perturbation column.
    """
    if within not in WITHIN:
        raise ValueError(f"consensus within={within!r}: use one of {sorted(WITHIN)}")
    if schema.PERTURBATION not in table:
        raise ValueError(f"consensus needs {schema.PERTURBATION}: annotate the table first")
    treated = table[table[schema.PERTURBATION].notna() & (table[schema.PERTURBATION] != "")]
    return aggregate(treated, [c for c in schema.CONDITION if c in table] + WITHIN[within], how)


def enough_foreground(foreground: np.ndarray, well: np.ndarray, minimum: float) -> tuple[np.ndarray, np.ndarray]:
    """The crops to profile: those with at least `minimum` foreground, or the best crop of a well without any.

    Args:
        foreground: fraction of nuclear pixels per crop, (N,); NaN (not measured) passes.
        well: code of the crop's well, (N,) int.
        minimum: the same as in training.

    Returns:
        (kept (N,) bool, lacking (N,) bool): `lacking` marks kept crops below the minimum.
    """
    passing = ~(foreground < minimum)
    lacking = np.zeros(len(well), bool)
    empty = ~np.isin(well, well[passing])
    candidates = np.flatnonzero(empty)
    order = candidates[np.lexsort((-foreground[candidates], well[candidates]))]
    _, first = np.unique(well[order], return_index=True)
    lacking[order[first]] = True
    return passing | lacking, lacking
