"""Image sources ▶ a table of fields: folders of PerkinElmer images, and CellProfiler's load_data.csv.

A table of fields has one row per field, `Metadata_` columns (strings) and one column `Path_<channel>` per channel, blank
if the channel has no file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.metadata.annotations import with_canonical_ids
from morphoclip.data.shards.field_table import FIELD_KEY

JUMP_CHANNELS = {1: "Mito", 2: "AGP", 3: "RNA", 4: "ER", 5: "DNA"}  # ch6-8 are brightfield
PATH = "Path_"
_PHENIX = re.compile(r"r(\d+)c(\d+)f(\d+)p(\d+)-ch(\d+)sk\d+fk\d+fl\d+\.tiff?$")


def path_columns(channels: Sequence[str]) -> list[str]:
    return [PATH + channel for channel in channels]


def find_images(
    folder: str | Path, channel_map: Mapping[int, str] = JUMP_CHANNELS, channels: Sequence[str] = schema.CHANNELS
) -> pd.DataFrame:
    """The fields under a folder of PerkinElmer images (`r01c02f03p01-ch5sk1fk1fl1.tiff`), at any depth.

    The plate is named after the folder of the images, or its parent if that is called Images, up to `__`
    ('BR00117010__2020-11-08T18_18_00-Measurement1/Images').

    Args:
        folder: a local folder.
        channel_map: the microscope's channel number -> name; numbers not named are left out.
        channels: names to store, in order.

    Raises:
        FileNotFoundError: no such images.
        ValueError: a channel without a number; a field with several planes (p01, p02: a z-stack).
    """
    unmapped = sorted(set(channels) - set(channel_map.values()))
    if unmapped:
        raise ValueError(f"channel map {dict(channel_map)} gives no number for {unmapped}")
    fields: dict[tuple[Path, str, str], dict[str, str]] = {}
    for path in sorted(Path(folder).rglob("*.tif*")):
        match = _PHENIX.match(path.name)
        if match is None or channel_map.get(int(match[5])) not in channels:
            continue
        row, column, site, _, channel = map(int, match.groups())
        field = fields.setdefault((path.parent, schema.well_name(row - 1, column - 1), str(site)), {})
        name = PATH + channel_map[channel]
        if name in field:
            raise ValueError(f"{path} and {field[name]} are planes of one field: project the z-stack or keep one plane")
        field[name] = str(path)
    if not fields:
        raise FileNotFoundError(
            f"no PerkinElmer images under {folder}: expected names such as r01c02f03p01-ch5sk1fk1fl1.tiff"
        )
    rows = [
        {
            schema.PLATE: _plate_of(place),
            schema.WELL: well,
            schema.SITE: site,
            **dict.fromkeys(path_columns(channels), ""),
        }
        | paths
        for (place, well, site), paths in fields.items()
    ]
    return _ordered(pd.DataFrame(rows), f"the images under {folder}")


def is_images(folder: str | Path) -> bool:
    """Whether a folder holds PerkinElmer images, at any depth, and no dataset."""
    if (Path(folder) / "manifest.json").is_file():
        return False
    return any(_PHENIX.match(path.name) for path in Path(folder).rglob("*.tif*"))


def _plate_of(folder: Path) -> str:
    folder = folder.resolve()
    return (folder.parent if folder.name.lower() == "images" else folder).name.split("__")[0]


def read_load_data(
    pattern: str | Sequence[str],
    *,
    root: str | None = None,
    replace: tuple[str, str] | None = None,
    channels: Sequence[str] = schema.CHANNELS,
    duplicates: str = "error",
) -> pd.DataFrame:
    """The fields of one or more load_data.csv (or .csv.gz, .parquet), local or at any fsspec URL.

    Reads `FileName_Orig<channel>` with `PathName_Orig<channel>`, or `URL_Orig<channel>` if the file has those. Unknown
    columns, brightfield and illumination images are left out.

    Args:
        pattern: glob, or several.
        root: folder or URL of relative PathNames; default: the folder of each csv.
        replace: (old, new) beginning of absolute PathNames from the machine that wrote the csv.
        channels: names to store, in order.
        duplicates: `error`, or `drop` to keep the first of several rows with the same field and files.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: a channel has no columns; rows repeat a field.
    """
    import fsspec

    parts = []
    for one in [pattern] if isinstance(pattern, str) else pattern:
        filesystem, _ = fsspec.core.url_to_fs(one)
        files = sorted(filesystem.glob(one))
        if not files:
            raise FileNotFoundError(f"no load_data file matches {one}")
        for file in files:
            name = filesystem.unstrip_protocol(file) if "://" in one else _as_given(one, file)
            parts.append(_read_one(name, root, replace, channels))
    table = pd.concat(parts, ignore_index=True)
    table = _without_repeats(table, channels, duplicates)
    return _ordered(table.drop(columns="_line"), "load_data")


def _as_given(pattern: str, file: str) -> str:
    """The file as a relative path if the pattern was one, so that manifests do not contain folders of a machine."""
    return file if os.path.isabs(pattern) else os.path.relpath(file)


def _read_one(file: str, root: str | None, replace: tuple[str, str] | None, channels: Sequence[str]) -> pd.DataFrame:
    if file.endswith(".parquet"):
        table = pd.read_parquet(file)
        table = table.astype(object).where(table.notna(), "").astype(str)
    else:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    folder = root if root is not None else file.rpartition("/")[0] or "."
    fields = with_canonical_ids(table[[c for c in table if c.startswith(schema.PREFIX)]])
    fields = fields[[c for c in fields if c in schema.SPELLINGS]].astype(str)
    for channel in channels:
        url, name, path = f"URL_Orig{channel}", f"FileName_Orig{channel}", f"PathName_Orig{channel}"
        if url in table:
            fields[PATH + channel] = table[url]
        elif name in table and path in table:
            fields[PATH + channel] = [
                _join(folder, p, n, replace) for p, n in zip(table[path], table[name], strict=True)
            ]
        else:
            known = sorted(c.removeprefix("FileName_Orig") for c in table if c.startswith("FileName_Orig"))
            raise ValueError(f"{file} has no columns {name} and {path} (nor {url}); its channels are {known}")
    return fields.assign(_line=[f"{file} row {number}" for number in range(2, len(fields) + 2)])


def _join(folder: str, path: str, name: str, replace: tuple[str, str] | None) -> str:
    if not name:
        return ""
    if replace is not None and path.startswith(replace[0]):
        path = replace[1] + path[len(replace[0]) :]
    absolute = path.startswith("/") or "://" in path
    return "/".join(part.rstrip("/") for part in ("" if absolute else folder, path, name) if part)


def _without_repeats(table: pd.DataFrame, channels: Sequence[str], duplicates: str) -> pd.DataFrame:
    if duplicates not in ("error", "drop"):
        raise ValueError(f"duplicates={duplicates!r}: use error or drop")
    key = [column for column in FIELD_KEY if column in table]
    repeated = table.duplicated(key, keep="first")
    same = table.duplicated([*key, *path_columns(channels)], keep="first")
    wrong = repeated if duplicates == "error" else repeated & ~same
    if wrong.any():
        second = table[wrong].iloc[0]
        first = table[(table[key] == second[key]).all(axis=1)].iloc[0]
        identical = bool(same[second.name])
        remedy = (
            "remove one, or pass --duplicates drop" if identical else "they name different files: correct one of them"
        )
        raise ValueError(
            f"{first['_line']} and {second['_line']} describe the same field "
            f"({' '.join(second[key])}); {int(wrong.sum())} such rows: {remedy}"
        )
    return table[~repeated]


def _ordered(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table sorted by plate, well and site (numerically), with ids as strings; ValueError if a field repeats."""
    key = [column for column in FIELD_KEY if column in table]
    if table.duplicated(key).any():
        twice = table[table.duplicated(key)].iloc[0]
        raise ValueError(f"{what} have the field {' '.join(twice[key])} twice: give the plates different folders")
    site = table[schema.SITE] if schema.SITE in table else pd.Series("", index=table.index)
    order = table.assign(_site=site.str.zfill(8)).sort_values([c for c in key if c != schema.SITE] + ["_site"])
    return order.drop(columns="_site").reset_index(drop=True)
