"""Plate heat maps of the report: the replicate score of each well position."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema

_PALE, _DEEP = np.array([238, 243, 244]), np.array([9, 79, 87])
MOST_PLATES = 24


def plate_maps(queries: pd.DataFrame, value: str = "average_precision") -> list[dict]:
    """For each plate its name, numbers of rows and columns, and the colour and tooltip of each scored well.

    Args:
        queries: one row per query with Metadata_Plate, Metadata_Well and `value` between 0 and 1.
    """
    maps = []
    for plate, wells in list(queries.groupby(schema.PLATE, sort=True))[:MOST_PLATES]:
        positions = [schema.well_position(well) for well in wells[schema.WELL]]
        rows, columns = (max(position[axis] for position in positions) + 1 for axis in (0, 1))
        cells = [
            {"row": row, "column": column, "colour": colour(score), "title": f"{well} {score:.2f}"}
            for (row, column), well, score in zip(positions, wells[schema.WELL], wells[value], strict=True)
        ]
        maps.append({"plate": str(plate), "rows": rows, "columns": columns, "cells": cells})
    return maps


def colour(score: float) -> str:
    """'#rrggbb' between pale (0) and deep (1)."""
    red, green, blue = np.rint(_PALE + (_DEEP - _PALE) * min(max(score, 0.0), 1.0)).astype(int)
    return f"#{red:02x}{green:02x}{blue:02x}"
