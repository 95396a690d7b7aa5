"""Delimited text ▶ a frame: encoding, separator, decimal comma, lines before the header, headers of two rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", "|": "bars", " ": "blanks"}
NO_TABLES = ("<", "{", "version https://git-lfs")  # a web page, JSON, a file that `git lfs pull` would fetch
SAMPLE = 200  # lines that separator and decimal comma are judged by
_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")


def decoded(content: bytes, path: Path, notes: list[str]) -> str:
    """The text of a file in UTF-8 (with or without byte order mark), UTF-16 or Latin-1, which is noted.

    Raises:
        ValueError: the content is not text.
    """
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding)
    if len(content) > 3 and content[1:40:2].strip(b"\0") == b"":
        return content.decode("utf-16-le")
    if b"\0" in content[:4096]:
        raise ValueError(
            f"{path} is neither text nor a table of a known format (it starts with {content[:8]!r}): "
            "save it as csv, tsv, Excel, Parquet, feather or AnnData"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        notes.append(f"{path.name} is not UTF-8 and is read as Latin-1: check names with accents or µ")
        return content.decode("latin-1")


def read_text(
    content: bytes, path: Path, as_text: Callable[[str], bool], notes: list[str]
) -> tuple[pd.DataFrame, str | None]:
    """(frame, plate named above the header or None) of delimited text.

    Names of columns are unchanged, repeats included; a column without one is `Unnamed: <number>`, as in pandas.

    Args:
        as_text: whether a column of this name is read as text, so that '0012' stays as it is.

    Raises:
        ValueError: no rows, no separator, or rows with more fields than the header.
    """
    text = decoded(content, path, notes).replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    lines, plate = _from_header(text.split("\n"), path, notes)
    if not any(lines):
        raise ValueError(f"{path} has no header and no rows")
    separator = _separator(lines[:SAMPLE])
    rows = list(csv.reader(lines[:SAMPLE], delimiter=separator, skipinitialspace=True))
    if not rows:
        raise ValueError(f"{path} has no header and no rows")
    header, first = [name.strip() for name in rows[0]], 1
    if len(header) < 2 or lines[0].startswith(NO_TABLES):
        raise ValueError(f"{path} holds no table: its first line is {lines[0][:60]!r}")
    if _two_rows(rows):
        header, first = [f"{above}_{below.strip()}" for above, below in zip(header, rows[1], strict=True)], 2
    if len(rows) <= first:
        raise ValueError(f"{path} has no rows")
    last = next(csv.reader([lines[-1]], delimiter=separator, skipinitialspace=True))
    if len(last) < len(header) - 1 and len({len(row) for row in rows[first:-1] if row}) < 2:
        raise ValueError(
            f"{path} is cut off: its last row has {len(last)} of {len(header)} cells ({lines[-1][:40]!r}); copy it again"
        )
    if {len(row) for row in rows[first:] if row} == {len(header) + 1}:
        trailing = all(row[-1].strip() == "" for row in rows[first:] if row)
        header = [*header, ""] if trailing else ["", *header]
    sampled = [cell.strip() for row in rows[first:] for cell in row]
    header = [name or f"Unnamed: {number}" for number, name in enumerate(header)]
    commas, points = (sum(map(bool, map(pattern.fullmatch, sampled))) for pattern in (_COMMA, _POINT))
    decimal = "," if separator != "," and commas > points else "."
    if separator != "," or decimal == ",":
        notes.append(
            f"{path.name} is separated by {SEPARATORS[separator]}" + (", with decimal commas" if decimal == "," else "")
        )
    types = {number: str for number, name in enumerate(header) if as_text(name)}
    try:
        frame = pd.read_csv(
            io.StringIO("\n".join(lines[first:])), sep=separator, decimal=decimal, header=None, dtype=types,
            names=range(len(header)), index_col=False, skipinitialspace=True, low_memory=False,
        )  # fmt: skip
    except (pd.errors.ParserError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read as a table separated by {SEPARATORS[separator]} with {len(header)} columns: {error}"
        ) from error
    frame.columns = pd.Index(header, dtype=object)
    return frame, plate


def _from_header(lines: list[str], path: Path, notes: list[str]) -> tuple[list[str], str | None]:
    """(lines from the header on, plate that the lines before it name): comments, Excel's `sep=`, Harmony's preamble."""
    plate = None
    for number, line in enumerate(lines[:50]):
        if line.strip().lower() == "[data]":
            named = [line.split("\t")[1] for line in lines[:number] if line.lower().startswith("plate name\t")]
            notes.append(f"{path.name}: {number + 1} lines above the table are left out, as Harmony writes them")
            return lines[number + 1 :], named[0].strip() if named else None
    start = 0
    while start < len(lines) and (not lines[start].strip(" \t,;") or re.match(r"#|sep=.$", lines[start].strip())):
        start += 1
    if any(line.strip() for line in lines[:start]):
        notes.append(f"{path.name}: {start} lines above the table are left out, e.g. {lines[0].strip()[:60]!r}")
    return lines[start:], plate


def _separator(lines: list[str]) -> str:
    """The separator that cuts the header into the most columns which the rows have too."""
    best, most = ",", 1
    for separator in SEPARATORS:
        if separator == " " and most > 1:
            break
        counts = [len(row) for row in csv.reader(lines[:20], delimiter=separator, skipinitialspace=True) if row]
        agreeing = all(count in (counts[0], counts[0] + 1) for count in counts[1:])
        if agreeing and counts[0] > most:
            best, most = separator, counts[0]
    if most > 1:
        return best
    header = lines[0]
    return max(SEPARATORS, key=header.count)


def _two_rows(rows: list[list[str]]) -> bool:
    """Whether two rows are the header, as CellProfiler writes several objects: Image, Image, Cells, … above the names."""
    if len(rows) < 2 or len(rows[0]) != len(rows[1]) or len(set(rows[0])) > max(1, len(rows[0]) // 2):
        return False
    known = {"image", "cells", "cytoplasm", "nuclei", "experiment"}
    return bool({name.strip().lower() for name in rows[0]} & known) and len(set(rows[1])) > len(set(rows[0]))
