"""Features whose scale decides every distance: one value that explodes, or one feature with most of the variance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema

SHARE = 0.5  # of the summed variance
FEWEST = 8  # features below which one may well carry half of the variance
EXPLODED = 1e6  # times the median size of the feature, or of all features where that is larger
BLOCK = 64


def dominating_features(table: pd.DataFrame) -> list[str]:
    """A sentence on each exploding value, and on a feature that carries most of the variance; empty if there is none."""
    names = schema.split_columns(table)[1]
    if len(names) < 2 or len(table) < 2:
        return []
    largest, usual, variance = (np.zeros(len(names)) for _ in range(3))
    for start in range(0, len(names), BLOCK):  # so that a large screen is not copied whole
        block = table[names[start : start + BLOCK]].to_numpy(np.float64)
        block = np.where(np.isfinite(block), block, 0)
        part = slice(start, start + BLOCK)
        largest[part], usual[part] = np.abs(block).max(axis=0), np.median(np.abs(block), axis=0)
        with np.errstate(over="ignore"):
            variance[part] = block.var(axis=0)
    typical = np.maximum(usual, np.median(usual))
    exploded = np.flatnonzero((typical > 0) & (largest > EXPLODED * typical))
    said = []
    for number in exploded[:3]:
        row, value = _largest(table[names[number]])
        said.append(
            f"{names[number]} is {value:.3g} at {_where(table, row)}, where its median is {usual[number]:.3g}: "
            "it decides every distance from this well; correct the value or leave the feature out"
        )
    total = float(variance.sum())
    most = int(variance.argmax())
    if not said and len(names) >= FEWEST and total > 0 and variance[most] > SHARE * total:
        row, value = _largest(table[names[most]])
        said.append(
            f"{names[most]} carries {variance[most] / total:.0%} of the variance of all {len(names)} features (largest value "
            f"{value:.3g} at {_where(table, row)}), so it decides every distance: normalise the features or leave "
            "it out"
        )
    return said


def _largest(column: pd.Series) -> tuple[int, float]:
    """(row, value) of the finite value of the largest size."""
    values = column.to_numpy(np.float64)
    row = int(np.argmax(np.where(np.isfinite(values), np.abs(values), -1)))
    return row, float(values[row])


def _where(table: pd.DataFrame, row: int) -> str:
    known = [table[c].iloc[row] for c in (schema.PLATE, schema.WELL) if c in table]
    return " ".join(map(str, known)) or f"row {row + 1}"
