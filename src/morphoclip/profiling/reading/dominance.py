"""Features whose scale decides every distance: one value that explodes, or one feature with most of the variance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema

SHARE = 0.5  # of the summed variance
FEWEST = 8  # features below which one may well carry half of the variance
EXPLODED = 1e6  # times the feature's own 99th percentile


def dominating_features(table: pd.DataFrame) -> list[str]:
    """A sentence on each exploding value, and on a feature that carries most of the variance; empty if there is none."""
    names = schema.split_columns(table)[1]
    if len(names) < 2 or len(table) < 2:
        return []
    values = table[names].to_numpy(np.float64)
    finite = np.where(np.isfinite(values), values, np.nan)
    size = np.abs(finite)
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.nanmax(np.where(np.isnan(size), 0, size), axis=0)
        usual = np.nanmedian(np.where(np.isnan(size), 0, size), axis=0)
        exploded = np.flatnonzero(largest > EXPLODED * np.maximum(usual, np.median(usual)))
        variance = np.nanvar(np.where(np.isnan(finite), 0, finite), axis=0)
    said = []
    for number in exploded[:3]:
        row = int(np.nanargmax(size[:, number]))
        said.append(
            f"{names[number]} is {values[row, number]:.3g} at {_where(table, row)}, where its median is {usual[number]:.3g}: "
            "it decides every distance from this well; correct the value or leave the feature out"
        )
    total = float(variance.sum())
    most = int(variance.argmax())
    if not said and len(names) >= FEWEST and total > 0 and variance[most] > SHARE * total:
        row = int(np.nanargmax(size[:, most]))
        said.append(
            f"{names[most]} carries {variance[most] / total:.0%} of the variance of all {len(names)} features (largest value "
            f"{values[row, most]:.3g} at {_where(table, row)}), so it decides every distance: normalise the features or leave "
            "it out"
        )
    return said


def _where(table: pd.DataFrame, row: int) -> str:
    known = [table[c].iloc[row] for c in (schema.PLATE, schema.WELL) if c in table]
    return " ".join(map(str, known)) or f"row {row + 1}"
