"""Plates and wells of a table: one spelling of each, and where a plate is not named, the file's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.columns import COLUMN, ROW

FORMATS = {96: (8, 12), 384: (16, 24), 1536: (32, 48)}


def with_wells(table: pd.DataFrame, where: str, notes: list[str]) -> pd.DataFrame:
    """The table with wells as B07, from a column of names or from two of row and column numbers.

    Raises:
        ValueError: a well that does not exist, named with its plate and row; or one well of a plate under two spellings.
    """
    if schema.WELL not in table:
        if ROW not in table or COLUMN not in table:
            return table
        rows = table[ROW].astype(str).str.strip().str.replace(r"\.0+$", "", regex=True)
        letters = [_letter(value) for value in rows]
        columns = table[COLUMN].astype(str).str.strip().str.replace(r"\.0+$", "", regex=True)
        wells = pd.Series([f"{a}{b}" for a, b in zip(letters, columns, strict=True)], index=table.index, dtype=object)
        table = table.assign(**{schema.WELL: wells})
        notes.append(f"{where}: wells are made of row and column, e.g. row {rows.iloc[0]} column {columns.iloc[0]}")
    wells = table[schema.WELL].astype(object).where(table[schema.WELL].notna(), "").astype(str)
    if wells.str.fullmatch(r"\d+(\.0+)?").any():
        number = wells[wells.str.fullmatch(r"\d+(\.0+)?")].iloc[0]
        raise ValueError(
            f"{where}: wells are numbers, e.g. {number}, and may count along rows or columns: give names such as B07, or "
            "row and column numbers as two columns (columns.row=… columns.column=…)"
        )
    names = {"": ""}
    for well in wells.unique():
        try:
            names.setdefault(well, schema.well_name(*schema.well_position(well)) if well.strip() else "")
        except ValueError as error:
            row = int(np.flatnonzero(wells == well)[0])
            plate = f"plate {table[schema.PLATE].iloc[row]}, " if schema.PLATE in table else ""
            raise ValueError(f"{where}: {plate}row {row + 1} below the header: {error}") from error
    read = wells.map(names).astype(object)
    _refuse_two_spellings(table, wells, read, where)
    return table.assign(**{schema.WELL: read})


def _refuse_two_spellings(table: pd.DataFrame, wells: pd.Series, read: pd.Series, where: str) -> None:
    """Raise ValueError if rows that differed in the spelling of the well alone have become one well."""
    if schema.PLATE not in table or wells.nunique() == read.nunique():
        return
    keys = [c for c in (*schema.PLATE_KEY, schema.SITE) if c in table]
    whole = table[keys].astype(str).assign(well=read, spelling=wells)
    again = whole.duplicated([*keys, "well"], keep=False) & ~whole.duplicated(keep=False) & (whole["well"] != "")
    if again.any():
        row = whole[again].iloc[0]
        same = whole[again & (whole["well"] == row["well"]) & (whole[schema.PLATE] == row[schema.PLATE])]
        raise ValueError(
            f"{where}: plate {row[schema.PLATE]} has well {row['well']} under two spellings, "
            f"{' and '.join(map(repr, sorted(same['spelling'].unique())[:2]))}: keep one row per well"
        )


def plate_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A plate's name for each file without a plate column: the file's name, with the folder's where files share theirs."""
    stems = {path: path.name.split(".")[0] for path in paths}
    shared = pd.Series(list(stems.values()), dtype=object).duplicated(keep=False).to_numpy()
    return {
        path: f"{path.parent.name}_{stem}" if again else stem
        for (path, stem), again in zip(stems.items(), shared, strict=True)
    }


def with_plates(table: pd.DataFrame, path: Path, name: str, notes: list[str]) -> pd.DataFrame:
    """The table with a plate column: its own, or `name` if no well is there twice.

    Raises:
        ValueError: no column is the plate and wells repeat; the message lists columns that could be it.
    """
    if schema.WELL not in table or (schema.PLATE in table and (table[schema.PLATE] != "").any()):
        return table
    if schema.PLATE in table and (table[schema.WELL] == "").any():  # rows are perturbations, of several wells
        return table
    keys = [c for c in (schema.WELL, schema.SITE) if c in table]
    if table.duplicated(keys).any():
        well = table.loc[table.duplicated(keys), schema.WELL].iloc[0]
        others = [c for c in table if c not in keys and 1 < table[c].nunique() <= len(table) // 2]
        could = [c for c in others if not table.duplicated([*keys, c]).any()]
        hint = f"; columns that could be it: {', '.join(could[:5])}" if could else ""
        raise ValueError(
            f"{path}: no column is the plate, and well {well} is there {int((table[schema.WELL] == well).sum())} times: "
            f"name it by columns.plate=…{hint}"
        )
    notes.append(f"{path.name}: no column is the plate, so the file's name is: {name}")
    return table.assign(**{schema.PLATE: name})


def plate_format(wells: pd.Series) -> int:
    """96, 384 or 1536: the smallest format that holds all wells."""
    positions = [schema.well_position(well) for well in wells.unique() if well]
    row, column = (max((p[axis] for p in positions), default=0) for axis in (0, 1))
    return next(size for size, (rows, columns) in FORMATS.items() if row < rows and column < columns)


def outside_format(table: pd.DataFrame) -> list[str]:
    """A note for each plate where one or two wells lie outside the format that the other wells fill to a half or more."""
    notes = []
    for plate, wells in table.groupby(schema.PLATE)[schema.WELL]:
        positions = {well: schema.well_position(well) for well in wells.unique() if well}
        for size, (rows, columns) in FORMATS.items():
            outside = [well for well, (row, column) in positions.items() if row >= rows or column >= columns]
            if 0 < len(outside) <= 2 and len(positions) - len(outside) >= size // 2:
                notes.append(f"plate {plate}: {', '.join(outside)} lies outside the {size} wells of its other wells")
    return notes


def _letter(value: str) -> str:
    """The letters of a row given as a number from 1, or as letters already; other values as they are."""
    if not re.fullmatch(r"\d+", value):
        return value
    if not 1 <= int(value) <= schema.POSITION_ROWS:
        raise ValueError(
            f"there is no row {value} of wells: rows are counted from 1 (A) to {schema.POSITION_ROWS} (AF)"
        )
    return schema.well_name(int(value) - 1, 0)[:-2]
