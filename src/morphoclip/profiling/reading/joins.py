"""Profiles + metadata tables of any layout ▶ annotated profiles, each table joined by what it shares with them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.annotations import annotate, with_canonical_ids
from morphoclip.profiling.reading.jump import with_modality_and_controls
from morphoclip.profiling.reading.keys import GENES, IDENTIFIERS, Key, bare, located, on_plates, possible_keys
from morphoclip.profiling.reading.matching import Matches
from morphoclip.profiling.reading.merge import merge
from morphoclip.profiling.reading.metadata_files import (
    has_annotations_folder,
    read_metadata_file,
    tables_of_folder,
)

GENES_PART = " (rows of genes)"  # name of a part of a table in notes


@dataclass(frozen=True)
class Found:
    """The key by which a table belongs to profiles: strings of the profiles' rows (N,) and of the table's; '' for none."""

    key: Key
    ours: np.ndarray
    theirs: np.ndarray
    how: list[Matches]


def join_metadata(
    table: pd.DataFrame,
    metadata: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """Left-join metadata onto profiles; rows, their order and their index are kept.

    A folder laid out like CPJUMP1's is joined by `annotate`, by its rules. Of other folders every table is read, plate
    maps together with their barcodes. A table is joined by the most specific key that both have and that matches a
    row: plate and well, plate, well (one map for all plates), perturbation and dose (where the table lists a
    perturbation several times), perturbation (any id, InChIKey or name), gene, batch, source. Tables can build on each
    other: JUMP's well.csv gives the ids that compound.csv describes.

    Spellings that differ in blanks, case, leading zeros, or the batch of a BRD id are joined, with a note. The profiles'
    own values stay, blanks are filled, and differing values are noted.

    Args:
        table: profiles; `Metadata_*` columns and features.
        metadata: a table (csv, tsv, txt, Excel, parquet, feather, compressed or not), a folder, a glob, or a list of these.
        columns: canonical name -> name of the column in the profiles and in the metadata.
        notes: receives a sentence on each table: how it was joined, how many wells it left without a match, with
            examples. None: they are warnings.

    Raises:
        FileNotFoundError: a path does not exist, or a folder holds no table.
        ValueError: a table matches no row, lists a key twice with different values, or a key could be several others.
    """
    said: list[str] = []
    if has_annotations_folder(metadata):
        return annotate(table, str(metadata))
    table = _canonical(table)
    given: dict[str, pd.DataFrame] = {}
    in_folders: dict[str, pd.DataFrame] = {}
    for path in _paths(metadata):
        if has_annotations_folder(path):
            table = annotate(table, path)
        elif path.is_dir():
            in_folders |= {str(path / name): frame for name, frame in tables_of_folder(path, columns, said).items()}
        else:
            given[str(path)] = read_metadata_file(path, columns)
    table = _join_all(table, given, in_folders, said)
    table = with_modality_and_controls(table, said)
    if notes is None:
        for line in said:
            warnings.warn(line, stacklevel=2)
    else:
        notes += said
    metadata_columns = [c for c in table if c.startswith(schema.PREFIX)]
    return table[metadata_columns + [c for c in table if not c.startswith(schema.PREFIX)]]


def _join_all(
    table: pd.DataFrame, given: Mapping[str, pd.DataFrame], in_folders: Mapping[str, pd.DataFrame], notes: list[str]
) -> pd.DataFrame:
    """Join the tables in the order of their keys, most specific first; each can bring the key of the next."""
    left = {
        name: on_plates(table, part)
        for file, frame in {**given, **in_folders}.items()
        for name, part in _parts(file, frame).items()
    }
    kinds: set[str] = set()
    joined: set[str] = set()
    while True:
        found: dict[str, Found] = {}
        for name in list(left):
            try:
                if (one := find_key(table, left[name], name)) is not None:
                    found[name] = one
            except ValueError as error:
                _note_or_raise(error, name, given, notes)
                left.pop(name)
        if not found:
            break
        name = min(found, key=lambda each: (found[each].key.rank, list(left).index(each)))
        frame, one = left.pop(name), found[name]
        try:
            table = merge(table, frame, one.key, one.ours, one.theirs, one.how, name, notes)
            kinds.add(one.key.kind)
            joined.add(name.removesuffix(GENES_PART))
        except ValueError as error:
            _note_or_raise(error, name, given, notes)
    for name, frame in left.items():
        alike = {key.kind for key in possible_keys(table, frame)} | _kinds_of(frame)
        file = name.removesuffix(GENES_PART)
        if file in joined:
            continue
        if file in given and not kinds & alike:
            raise ValueError(_nothing_matches(table, frame, name))
        notes.append(f"{name}: not joined, none of its rows belongs to a well of the profiles")
    return table


def _parts(name: str, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The table, or its rows of perturbations and its rows of genes alone, which have keys of their own."""
    ids, genes = ([c for c in frame if bare(c) in names] for names in (IDENTIFIERS, GENES))
    alone = (frame[ids] == "").all(axis=1) & (frame[genes] != "").any(axis=1)
    if not ids or not alone.any() or alone.all():
        return {name: frame}
    return {name: frame[~alone], name + GENES_PART: frame[alone]}


def _note_or_raise(error: ValueError, name: str, given: Mapping[str, pd.DataFrame], notes: list[str]) -> None:
    """A table that was named must be joined; one that lies in a folder is left out with a note."""
    if name.removesuffix(GENES_PART) in given:
        raise error
    notes.append(f"not joined: {error}")


def find_key(table: pd.DataFrame, extra: pd.DataFrame, name: str) -> Found | None:
    """The most specific key that matches at least one row; None if there is none.

    Raises:
        ValueError: a well of the metadata is not a well name.
    """
    for key in possible_keys(table, extra):
        try:
            ours, theirs, how = located(table, extra, key)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if set(ours) & set(theirs) - {""}:
            return Found(key, ours, theirs, how)
    return None


def _kinds_of(frame: pd.DataFrame) -> set[str]:
    return {"perturbation", "perturbation and dose"} if any(bare(c) in IDENTIFIERS for c in frame) else set()


def _nothing_matches(table: pd.DataFrame, frame: pd.DataFrame, name: str) -> str:
    """What both have, with examples, and what to do."""

    def examples(of: pd.DataFrame) -> str:
        columns = [
            c for c in of if c in (schema.PLATE, schema.WELL, schema.GENE, schema.BATCH) or bare(c) in IDENTIFIERS
        ]
        values = {c: [v for v in of[c].astype(str).unique() if v][:2] for c in columns[:6]}
        return (
            "; ".join(f"{c} {', '.join(map(repr, v))}" for c, v in values.items()) or "no column that identifies a row"
        )

    return (
        f"metadata={name}: none of its rows belongs to a well of the profiles. The file has {examples(frame)} (columns: "
        f"{', '.join(list(frame)[:12])}); the profiles have {examples(table)}. Give both the same plate and well names or "
        "perturbation ids, name the column (columns.perturbation=<name in the file>), or leave the file out"
    )


def _paths(metadata: str | Path | Sequence[str | Path]) -> list[Path]:
    paths = []
    for one in [metadata] if isinstance(metadata, str | Path) else metadata:
        found = [Path(one)] if Path(one).exists() else [Path(p) for p in sorted(glob(str(one), recursive=True))]
        if not found:
            raise FileNotFoundError(f"metadata={one}: there is no such file or folder")
        paths += found
    return paths


def _canonical(table: pd.DataFrame) -> pd.DataFrame:
    table = schema.canonicalize(table)
    return with_canonical_ids(table) if {schema.PLATE, schema.WELL} <= set(table) else table
