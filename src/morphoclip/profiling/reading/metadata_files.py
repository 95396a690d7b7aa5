"""Metadata tables on disk ▶ tables of strings in canonical column names."""

from __future__ import annotations

import io
import lzma
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.annotations import EXPERIMENT_COLUMNS, EXPERIMENT_FILE, MAPS_FILE, plate_ids, read_maps
from morphoclip.profiling.reading.files import read_frame
from morphoclip.profiling.reading.text import decoded
from morphoclip.profiling.reading.unpacking import unpacked

SUFFIXES = (".csv", ".tsv", ".txt", ".tab", ".parquet", ".feather", ".xlsx", ".xls")
COMPRESSED = (".gz", ".bz2", ".xz", ".zip")
_DOSE_UNIT = re.compile(r"(?:dose|conc|concentration)(nm|mm)")
_OF_COMPOUNDS = {"compoundsmiles": schema.SMILES, "compoundinchikey": schema.INCHIKEY, "compoundname": schema.NAME}


def has_annotations_folder(metadata: object) -> bool:
    """Whether `metadata` is one folder laid out like CPJUMP1's: plate maps and experiment-metadata.tsv, at any depth."""
    if not isinstance(metadata, str | Path) or not Path(metadata).is_dir():
        return False
    return all(any(Path(metadata).rglob(name)) for name in (MAPS_FILE, EXPERIMENT_FILE))


def tables_of_folder(folder: Path, columns: Mapping[str, str] | None, notes: list[str]) -> dict[str, pd.DataFrame]:
    """File name -> table, of all tables in a folder at any depth; plate maps with their barcodes are one table.

    Files that cannot be read as a table get a note.

    Raises:
        FileNotFoundError: the folder holds no table.
    """
    tables = {}
    if any(folder.rglob(MAPS_FILE)):
        tables[MAPS_FILE] = canonical(read_maps(folder))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == MAPS_FILE or path.parent.name == "platemap" or not is_table(path):
            continue
        try:
            tables[str(path.relative_to(folder))] = read_metadata_file(path, columns)
        except ValueError as error:
            notes.append(f"not joined: {error}")
    if not tables:
        raise FileNotFoundError(
            f"metadata={folder}: the folder holds no table ({', '.join(SUFFIXES)}, compressed or not)"
        )
    return tables


def is_table(path: Path) -> bool:
    """Whether the name ends as that of a table, compressed or not."""
    name = path.name.lower()
    stem = next((name.removesuffix(ending) for ending in COMPRESSED if name.endswith(ending)), name)
    return not name.startswith(".") and stem.endswith(SUFFIXES)


def read_metadata_file(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One table in canonical column names, all strings, '' where missing (blank, NA, NaN, None).

    Args:
        columns: canonical name, with or without prefix -> name of the column in the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read as a table, or has no row.
    """
    if not path.is_file():
        raise FileNotFoundError(f"metadata={path}: there is no such file or folder")
    try:
        table = _frame(path)
    except (ValueError, OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, ImportError) as error:
        raise ValueError(f"{path} cannot be read as a table: {error}") from error
    if table.empty:
        raise ValueError(
            f"{path} has no rows: give a table with a header line and a row per well, plate or perturbation"
        )
    return canonical(table, columns)


def canonical(table: pd.DataFrame, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The table as strings with canonical column names; other columns get the prefix `Metadata_`.

    `attrs["spelled"]` maps canonical names to those of the file.
    """
    table = table.loc[:, [not str(c).startswith("Unnamed: ") for c in table.columns]]
    table = table.set_axis([str(c).strip().removeprefix("Image_") for c in table.columns], axis=1)
    table = table.loc[:, ~table.columns.duplicated()].apply(_text)
    given = {theirs.removeprefix("Image_"): _ours(name) for name, theirs in (columns or {}).items()}
    table = table.rename(
        columns={theirs: ours for theirs, ours in given.items() if theirs in table and ours not in table}
    )
    if {"Assay_Plate_Barcode", *list(EXPERIMENT_COLUMNS)[:3]} <= set(table.columns):  # CPJUMP1's list of plates
        table = table.rename(columns=EXPERIMENT_COLUMNS)
        table[schema.MODALITY] = table[schema.MODALITY].str.lower()
    table = _in_micromolar(table)
    of_compounds = {c: _OF_COMPOUNDS[name] for c in table if (name := _letters(c)) in _OF_COMPOUNDS}
    table = table.rename(columns={c: ours for c, ours in of_compounds.items() if ours not in set(table)})
    listed = next((c for c in table if _letters(c) in ("targetlist", "targets")), None)
    if listed is None and (target := next((c for c in table if _letters(c) == "target"), None)) is not None:
        table = table.rename(columns={target: schema.TARGETS})
    spelled = {ours: _prefixed(theirs) for theirs, ours in schema.canonical_columns(list(table)).items()}
    table = schema.canonicalize(table)
    if {"row", "column"} <= {_bare(c) for c in table} and schema.WELL not in table:
        row, column = (next(c for c in table if _bare(c) == name) for name in ("row", "column"))
        table = table.rename(columns={row: "Metadata_Row", column: "Metadata_Column"})
        numbered = table["Metadata_Row"].str.fullmatch(r"\d+").all()
        names = (chr(64 + int(r)) if numbered else r for r in table["Metadata_Row"])
        table[schema.WELL] = [f"{r}{c}" for r, c in zip(names, table["Metadata_Column"], strict=True)]
    table = table.set_axis([_prefixed(c) for c in table.columns], axis=1)
    table.attrs["spelled"] = spelled
    return table


def _in_micromolar(table: pd.DataFrame) -> pd.DataFrame:
    """A dose whose name says nM or mM, as the dose in µM."""
    for column in table:
        unit = _DOSE_UNIT.fullmatch(_letters(column))
        if unit and schema.DOSE not in table:
            micromolar = pd.to_numeric(table[column], errors="coerce") * {"nm": 1e-3, "mm": 1e3}[unit[1]]
            text = micromolar.map(lambda dose: f"{dose:.6g}" if dose == dose else "")
            return table.drop(columns=column).assign(**{schema.DOSE: text})
    return table


def _frame(path: Path) -> pd.DataFrame:
    content, kind = unpacked(path)
    if kind != "text":
        return read_frame(path, lambda _: True, [])
    text = decoded(content, path, [])
    lines = text.splitlines()
    skipped = next((i for i, line in enumerate(lines) if line.strip() and line[0] not in "!#"), 0)
    header = lines[skipped] if lines else ""
    separator = max("\t;,", key=header.count)
    return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, skiprows=skipped, skipinitialspace=True)


def _text(column: pd.Series) -> pd.Series:
    """The column as strings, '' where missing; whole numbers saved as floats (24.0) become 24."""
    missing = column.isna()
    if pd.api.types.is_float_dtype(column):
        return plate_ids(column.fillna(0)).mask(missing, "")
    text = column.astype(object).where(~missing, "").astype(str)
    return text.mask(text.isin([value for value in text.unique() if not value.strip()]), "")


def _prefixed(column: str) -> str:
    return column if column.startswith(schema.PREFIX) else schema.PREFIX + column


def _ours(name: str) -> str:
    """The canonical name that a short one stands for: `perturbation`, `dose`, `time`, …"""
    short = {canonical.removeprefix(schema.PREFIX).lower(): canonical for canonical in schema.SPELLINGS}
    spelled = {spelling: canonical for canonical, names in schema.SPELLINGS.items() for spelling in names}
    known = spelled | short | {"dose": schema.DOSE, "targets": schema.TARGETS}
    return known.get(_bare(name), known.get(_bare(name).replace("_", ""), _prefixed(name)))


def _bare(column: str) -> str:
    return column.removeprefix(schema.PREFIX).lower()


def _letters(column: str) -> str:
    return "".join(character for character in _bare(column) if character.isalnum())
