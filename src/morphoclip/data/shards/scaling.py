"""Intensity scaling of a field: by its own percentiles, or by those of its plate or of the plate's controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.shards.intensities import percentile_column


def scaling_columns(
    path: Path, channels: Sequence[str], scale_by: str, low_percentile: float, high_percentile: float
) -> list[str]:
    """The columns of fields.parquet that `field_scaling` needs and that exist."""
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    wanted = {percentile_column(p, channel) for p in (low_percentile, high_percentile) for channel in channels}
    if not wanted <= set(names):
        stored = sorted({c.split("_")[0][1:] for c in names if c.startswith("p")}, key=float)
        missing = next(p for p in (low_percentile, high_percentile) if percentile_column(p, channels[0]) not in names)
        raise ValueError(f"percentile {missing} is not stored; the dataset has {', '.join(stored)}")
    plate = {*schema.PLATE_KEY, schema.CONTROL_TYPE} if scale_by != "field" else set()
    return [name for name in names if name in wanted | plate]


def field_scaling(
    fields: pd.DataFrame,
    present: np.ndarray,
    channels: Sequence[str],
    scale_by: str,
    low_percentile: float,
    high_percentile: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The intensities (F, C) float32 that scale to 0 and 1 for every field; `present` are the split's fields.

    Raises:
        ValueError: unknown `scale_by`; a plate of the split without negative controls.
    """
    bounds = [
        fields[[percentile_column(percentile, channel) for channel in channels]]
        for percentile in (low_percentile, high_percentile)
    ]
    if scale_by != "field":
        if scale_by == "plate":
            reference = fields.index.isin(present)
        elif scale_by == "negcon":
            reference = schema.is_negcon(fields)
        else:
            raise ValueError(f"scale_by={scale_by!r}: use field, plate or negcon")
        plate = fields.groupby(list(schema.PLATE_KEY), sort=True).ngroup()
        lacking = sorted(set(fields.loc[present, schema.PLATE][~plate[present].isin(plate[reference])]))
        if lacking:
            raise ValueError(
                f"plate {lacking[0]} has no negcon fields to scale by ({len(lacking)} such plates): "
                "use scale_by=field or plate, or leave the plate out"
            )
        bounds = [values[reference].groupby(plate[reference]).median().reindex(plate).to_numpy() for values in bounds]
    low, high = (np.asarray(values, np.float32) for values in bounds)
    return low, np.maximum(high, low + 1)  # a constant channel scales to 0 instead of dividing by zero
