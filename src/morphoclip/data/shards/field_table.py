"""Collects the rows of fields.parquet while crops arrive, column by column so that a million fields fit in memory."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.shards.intensities import PERCENTILES, describe_field, percentile_column

FIELD_KEY = (*schema.WELL_KEY, schema.SITE)


class FieldTable:
    """The fields of a dataset in order of first appearance, identified by source, batch, plate, well and site."""

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self._columns: dict[str, list | array] = {}
        self._numbers: dict[tuple, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def enter(self, field_row: Mapping, image: np.ndarray | None = None) -> tuple[int, dict]:
        """The row number of a field, added if new, and its full description.

        A row without percentiles gets those already stored, or else those of `image` (C, H, W).

        Raises:
            ValueError: no plate, well or percentiles; columns differ from earlier rows; or a known field has new values.
        """
        row = _plain(field_row)
        key = tuple(row[column] for column in FIELD_KEY)
        number = self._numbers.get(key)
        if percentile_column(PERCENTILES[0], self.channels[0]) not in row:
            if number is not None:
                row = {column: values[number] for column, values in self._columns.items()} | row
            elif image is not None:
                row |= describe_field(image, self.channels)
            else:
                raise ValueError(f"field {'/'.join(key)} has no percentiles: add **describe_field(field, channels)")
        if self._columns and self._columns.keys() != row.keys():
            odd = sorted(self._columns.keys() ^ row.keys())
            raise ValueError(f"field {'/'.join(key)} and the fields before it differ in columns: {odd[:5]}")
        if number is None:
            number = self._append(key, row)
        elif changed := [column for column, value in row.items() if self._columns[column][number] != value]:
            raise ValueError(
                f"field {'/'.join(key)} appears twice with different {changed[0]}: "
                "fields of one well need different Metadata_Site"
            )
        return number, row

    def _append(self, key: tuple, row: dict) -> int:
        for column, value in row.items():
            if column not in self._columns:
                self._columns[column] = [] if isinstance(value, str) else array("q" if isinstance(value, int) else "d")
            self._columns[column].append(value)
        return self._numbers.setdefault(key, len(self._numbers))

    def metadata(self, number: int) -> dict:
        """The Metadata_ values of a field that are not blank."""
        values = {name: column[number] for name, column in self._columns.items() if name.startswith(schema.PREFIX)}
        return {name: value for name, value in values.items() if value != ""}

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(
            {
                name: np.asarray(column) if isinstance(column, array) else column
                for name, column in self._columns.items()
            }
        )


def _plain(field_row: Mapping) -> dict:
    """The row with every text column of the schema (blank if missing), the cell count as int and the rest as floats."""
    row: dict[str, str | int | float] = {column: "" for column in schema.SPELLINGS if column != schema.CELL_COUNT}
    for column, value in dict(field_row).items():
        if column == schema.CELL_COUNT:
            row[column] = int(value)
        elif column.startswith(schema.PREFIX):
            row[column] = "" if pd.isna(value) else str(value)
        else:
            row[column] = float(value)
    for column in (schema.PLATE, schema.WELL):
        if not row[column]:
            raise ValueError(f"a field row has no {column}; it holds {sorted(dict(field_row))[:8]}")
    return row
