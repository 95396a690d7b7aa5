"""Table files of any format ▶ one profile table in canonical column names."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.profiling.reading.columns import (
    FEATURE,
    KNOWN_METADATA,
    METADATA,
    Column,
    canonical_mapping,
    found_column,
    refuse_absent,
    with_names,
)
from morphoclip.profiling.reading.controls import Control, named_controls, with_controls
from morphoclip.profiling.reading.features import asked_features, chosen_features, sorted_out
from morphoclip.profiling.reading.files import read_frame
from morphoclip.profiling.reading.joins import join_metadata
from morphoclip.profiling.reading.values import as_text, canonical_values, in_micromolar, without_blanks
from morphoclip.profiling.reading.wells import outside_format, plate_names, with_plates, with_wells

Metadata = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Reading:
    """A table as read: canonical metadata as strings, then features; what each column was taken for; notes.

    Attributes:
        features_of: file -> features that it has, in its order.
    """

    table: pd.DataFrame
    columns: list[Column]
    notes: list[str]
    features_of: dict[Path, list[str]]


def read_profiles(
    path: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    control: Control | None = None,
    features: str | Sequence[str] | None = None,
    metadata: Metadata | None = None,
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """Read one profile table, or the joined tables of a glob or list, with canonical column names.

    Csv, tsv and other delimited text (compressed or not), Excel, Parquet, feather and AnnData are read, by their content
    and not by their names. Metadata are strings, blank if missing, so plate ids that look like numbers are unchanged;
    whole numbers saved as floats (24.0) become 24, wells read B07.

    Args:
        columns: {our name: the table's}, e.g. {"perturbation": "Compound", "dose": "conc_um"}; wins over known spellings.
        control: the perturbation of negative controls, or {column: value or values}; None: as the table says.
        features: names or patterns, or a file with a name per line; None: every numeric column that is no bookkeeping, no
            object position and no metadata.
        metadata: tables or a metadata folder to join.
        notes: gets a sentence on everything that was left out or decided; None: they are warnings.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: a file that is empty or damaged, a column that does not exist, an impossible well, text among numbers,
            or tables with different features.
    """
    given = any(option is not None for option in (columns, control, features, metadata))
    reading = read_tables(
        paths_of(path), columns=columns, control=control, features=features, metadata=metadata, as_is=not given
    )
    for note in reading.notes:
        if notes is None:
            warnings.warn(note, stacklevel=2)
        else:
            notes.append(note)
    first, *others = reading.features_of
    for other in others:
        if odd := set(reading.features_of[first]) ^ set(reading.features_of[other]):
            raise ValueError(
                f"{first} and {other} differ in {len(odd)} features, e.g. {sorted(odd)[:3]}: "
                "read them one by one and keep the features they share"
            )
    return reading.table


def paths_of(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that paths or globs match, sorted, without repeats; FileNotFoundError where one matches nothing."""
    found: set[Path] = set()
    for pattern in [path] if isinstance(path, str | Path) else path:
        matches = [Path(p) for p in glob(str(pattern), recursive=True)]
        if not matches and Path(pattern).exists():  # a name with brackets
            matches = [Path(pattern)]
        if not matches:
            raise FileNotFoundError(
                f"no profile table at {pattern}: it matches no file; check the folder, and quote globs on the command line"
            )
        folder = next((match for match in matches if match.is_dir()), None)
        if folder is not None:
            raise ValueError(f"{folder} is a folder: give its tables, e.g. '{folder}/*.csv.gz'")
        found.update(matches)
    return sorted(found)


def read_tables(
    paths: Sequence[Path],
    *,
    columns: Mapping[str, str] | None = None,
    known_columns: Mapping[str, str] | None = None,
    control: Control | None = None,
    features: str | Sequence[str] | None = None,
    metadata: Metadata | None = None,
    features_needed: bool = True,
    as_is: bool = False,
) -> Reading:
    """The joined tables of files, as `read_profiles` reads them; a feature that a file lacks is NaN in its rows.

    Args:
        known_columns: as `columns`, for names that the tables need not have.
        features_needed: a table without features is an error; else only metadata are returned.
        as_is: leave a column of control types, and controls without a name, as the table has them.

    Raises:
        ValueError: as `read_profiles` does, except for features that differ.
    """
    asked, notes = canonical_mapping(columns or {}), []
    mapping = {**canonical_mapping(known_columns or {}), **asked}
    wanted = set() if features is None else set(asked_features(features))
    parts, names = [], {}
    plan: dict[str, Column] = {}
    plates = plate_names(paths)
    for path in paths:
        own: list[str] = []
        required = asked if metadata is None and len(paths) == 1 else {}
        part, known, names[path] = _read_one(path, plates[path], mapping, required, wanted, own)
        plan |= {column.theirs: column for column in known}
        parts.append(part)
        notes.append(own)
    if metadata is None:
        refuse_absent(asked, [n for found in names.values() for n in found], _called(paths))
    said = _once_each(notes, paths)
    table = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0].reset_index(drop=True)
    text = [c for c in table if c.startswith(schema.PREFIX)]
    table = pd.concat([table[text].fillna("").astype(object), table.drop(columns=text)], axis=1)
    if schema.PLATE in table and schema.WELL in table:
        said += outside_format(table)
    if metadata is not None:
        table = join_metadata(table, metadata, columns=mapping, notes=said)
        absent = {ours: theirs for ours, theirs in asked.items() if ours not in table}
        refuse_absent(
            absent, [*(n for found in names.values() for n in found), *table], f"{_called(paths)} with metadata="
        )
    table = table if as_is else with_perturbations(table, said)
    if as_is and schema.CONTROL_TYPE in table:
        table = canonical_values(table, said)
    else:
        table = with_controls(table, control, said, {column.theirs: column.ours for column in plan.values()})
    table = table if as_is else named_controls(table)
    chosen, out = chosen_features(table, features, _called(paths), said) if features_needed else ([], [])
    plan |= {column.theirs: column for column in out} | {c: Column(c, FEATURE) for c in chosen}
    plan |= {
        c: Column(c, METADATA, c, "metadata=") for c in table if c.startswith(schema.PREFIX) and c not in _ours(plan)
    }
    table = table[[c for c in table if c.startswith(schema.PREFIX)] + chosen]
    has = {p: [c for c in chosen if c in part] for p, part in zip(paths, parts, strict=True)}
    order = {name: number for number, name in enumerate(n for found in names.values() for n in found)}
    known = sorted(plan.values(), key=lambda column: order.get(column.theirs, len(order)))
    for path in paths:
        said = [note.replace(str(path), path.name) for note in said]
    return Reading(table, known, said, has)


def with_perturbations(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The table with a perturbation column: its own, or the first of name, structure, guide and gene that it has."""
    if schema.PERTURBATION in table:
        return table
    for column in (schema.NAME, schema.INCHIKEY, schema.SMILES, schema.GUIDE, schema.GENE):
        if column in table and (table[column] != "").any():
            notes.append(f"no column holds perturbations, so {column} does; name another by columns.perturbation=…")
            return table.assign(**{schema.PERTURBATION: table[column]})
    return table


def _read_one(
    path: Path,
    plate: str,
    mapping: Mapping[str, str],
    required: Mapping[str, str],
    wanted: set[str],
    notes: list[str],
) -> tuple[pd.DataFrame, list[Column], list[str]]:
    """(table with canonical metadata as strings and numbers, what was judged so far, names in the file)."""
    theirs = set(mapping.values())

    def as_strings(name: str) -> bool:
        if name in wanted:
            return False
        known = (
            name.removeprefix("Image_").lower().startswith(schema.PREFIX.lower())
            or schema.plain_name(name) in KNOWN_METADATA
        )
        return known or found_column(name, theirs) is not None or name.removeprefix(schema.PREFIX) in theirs

    frame = read_frame(path, as_strings, notes)
    refuse_absent(required, frame.columns, str(path))  # before what an unknown plate or well would lead to
    table, plan = with_names(frame, mapping, path.name, notes)
    plain = [c for c in plan if c.role == METADATA and not c.why and schema.PREFIX not in c.theirs]
    if plain:
        pairs = ", ".join(f"{column.theirs!r} as {column.ours.removeprefix(schema.PREFIX)}" for column in plain)
        notes.append(f"{path.name}: columns read by their names: {pairs}")
    table, more = sorted_out(table, wanted, str(path), notes)
    text = [c for c in table if c.startswith(schema.PREFIX)]
    table = pd.concat([table[text].apply(as_text), table.drop(columns=text)], axis=1)
    table = without_blanks(table, path.name, notes)
    if schema.DOSE in table:
        named = next((column.theirs for column in plan if column.ours == schema.DOSE), schema.DOSE)
        table = table.assign(**{schema.DOSE: in_micromolar(table[schema.DOSE], named, path.name, notes)})
    table = with_wells(table, str(path), notes)
    return with_plates(table, path, plate, notes), [*plan, *more], list(frame.columns)


def _once_each(notes: Sequence[list[str]], paths: Sequence[Path]) -> list[str]:
    """Notes of several files, those that say the same of many files once with a count."""
    said: dict[str, tuple[str, int]] = {}
    for path, own in zip(paths, notes, strict=True):
        for note in own:
            same = note.replace(str(path), "").replace(path.name, "").replace(path.name.split(".")[0], "")
            first, count = said.get(same, (note, 0))
            said[same] = (first, count + 1)
    return [note if count == 1 else f"{note} (and so in {count - 1} more files)" for note, count in said.values()]


def _called(paths: Sequence[Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def _ours(plan: Mapping[str, Column]) -> set[str]:
    return {column.ours for column in plan.values()}
