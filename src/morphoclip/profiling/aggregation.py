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
    """Reduce each run of equal keys to one row, holding one run in memory.

    Args:
        runs: (key, rows (k, D)) with equal keys side by side.
        how: `mean` or `median`.

    Yields:
        (key, row (1, D) float64), so that the result can be reduced again by a coarser key.
    """
    reduce = reduction(how)
    for key, group in groupby(runs, key=itemgetter(0)):
        rows = np.concatenate([part for _, part in group]).astype(np.float64)
        yield key, reduce(rows, axis=0, keepdims=True)


def reduction(how: str):
    """The function named `how`, or ValueError."""
    if how not in REDUCTIONS:
        raise ValueError(f"aggregation {how!r} is none of {sorted(REDUCTIONS)}")
    return REDUCTIONS[how]


def aggregate(table: pd.DataFrame, by: Sequence[str], how: str = "mean") -> pd.DataFrame:
    """One row a group of equal `by`: features reduced, metadata kept where the group agrees and blank where not.

    Args:
        table: `Metadata_*` columns and features.
        by: metadata columns; their blanks count as one value.
        how: `mean` or `median`.

    Returns:
        Groups sorted by `by`; metadata columns (those of `by` first), then features in their own dtype.

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
    """One profile a perturbation (and modality, cell line, time, dose) per `batch`, per `source` or over `all` wells.

    Wells without a perturbation id have no consensus and are left out.

    Raises:
        ValueError: unknown `within` or `how`, or no Metadata_perturbation column.
    """
    if within not in WITHIN:
        raise ValueError(f"consensus within {within!r} is none of {sorted(WITHIN)}")
    if schema.PERTURBATION not in table:
        raise ValueError(f"consensus needs {schema.PERTURBATION}: annotate the table first")
    treated = table[table[schema.PERTURBATION].notna() & (table[schema.PERTURBATION] != "")]
    return aggregate(treated, [c for c in schema.CONDITION if c in table] + WITHIN[within], how)


def enough_foreground(foreground: np.ndarray, well: np.ndarray, minimum: float) -> tuple[np.ndarray, np.ndarray]:
    """Which crops to profile: those with at least `minimum` foreground, and the best one of a well that has none.

    Args:
        foreground: share of nuclear pixels a crop, (N,); NaN (not measured) passes.
        well: code of its well, (N,) int.
        minimum: as in training, where crops below it are left out.

    Returns:
        (kept (N,) bool, lacking (N,) bool): `lacking` marks the kept crops that do not pass.
    """
    passing = ~(foreground < minimum)
    lacking = np.zeros(len(well), bool)
    empty = ~np.isin(well, well[passing])
    candidates = np.flatnonzero(empty)
    order = candidates[np.lexsort((-foreground[candidates], well[candidates]))]
    _, first = np.unique(well[order], return_index=True)
    lacking[order[first]] = True
    return passing | lacking, lacking
