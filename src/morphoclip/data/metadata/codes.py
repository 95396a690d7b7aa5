"""Metadata of fields as integer codes for batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.perturbations import PerturbationTable


@dataclass(frozen=True)
class FieldCodes:
    """Integer codes of a set of fields, each (F,) int64 and -1 where a field is not in the split; `is_control` bool."""

    plate: np.ndarray
    well: np.ndarray
    position: np.ndarray
    perturbation: np.ndarray
    condition: np.ndarray
    is_control: np.ndarray


def code_fields(fields: pd.DataFrame, present: np.ndarray, table: PerturbationTable) -> FieldCodes:
    """Codes of the rows `present` of `fields`: ranks among the sorted unique values, whatever the order of rows."""
    chosen = fields.iloc[present]
    plate = list(schema.PLATE_KEY)
    wells, well_of = np.unique(chosen[schema.WELL].to_numpy(str), return_inverse=True)
    codes = {
        "plate": _ranks(chosen, plate),
        "well": _ranks(chosen, [*plate, schema.WELL]),
        "position": np.array([_position(well) for well in wells], np.int64)[well_of],
        "perturbation": _ranks(chosen, [schema.PERTURBATION]),
        "condition": table.codes(chosen),
        "is_control": schema.is_negcon(chosen),
    }
    spread = {name: np.full(len(fields), -1 if name != "is_control" else False) for name in codes}
    for code, values in codes.items():
        spread[code][present] = values
    return FieldCodes(**spread)


def _ranks(fields: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    return fields.groupby(list(columns), sort=True).ngroup().to_numpy(np.int64)


def _position(well: str) -> int:
    row, column = schema.well_position(well)
    return row * schema.POSITION_COLUMNS + column
