"""Profile tables ▶ a folder of features: one channel, a sample a row, trained on like the cached features of crops."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.loading.features import FEATURES, PROFILE, FeatureDataset
from morphoclip.data.shards.index import INDEX_COLUMNS, write_index
from morphoclip.data.shards.manifest import FORMAT_VERSION, MANIFEST, read_manifest
from morphoclip.data.shards.split_files import read_split, write_split
from morphoclip.files import sha256_of_file, write_atomically
from morphoclip.profiling.features import CLIP, CONSTANT, STANDARDISED, standardise_wells
from morphoclip.profiling.reading.tables import read_profiles
from morphoclip.version import __version__

TOOL = "morphoclip data import"
NOT_FINITE = ("error", "features", "wells")


def import_tables(
    tables: str | Sequence[str],
    out: str | Path,
    *,
    metadata: Any = None,
    columns: Mapping[str, str] | None = None,
    control: Any = None,
    features: Any = None,
    standardise_by_plate: bool = False,
    not_finite: str = "error",
    notes: list[str] | None = None,
) -> Path:
    """Write the wells of profile tables to the folder `out`, to train on; a folder made of the same tables is kept.

    Args:
        tables: paths or globs of tables with the same features.
        metadata, columns, control, features: see `read_profiles`.
        standardise_by_plate: as `features.standardise_by_plate`, for tables that are not normalised.
        not_finite: what to do with missing and infinite values: `error`, or leave out the `features` or the `wells`.
        notes: gets what was left out, and what the folder lacks for training.

    Raises:
        FileExistsError: `out` exists and was made of other tables, or with other arguments.
        FileNotFoundError: no table matches.
        ValueError: two rows of one well, a value that is not finite, or as in `read_profiles`.
    """
    out, said = Path(out), notes if notes is not None else []
    patterns = [tables] if isinstance(tables, str) else list(tables)
    arguments = {
        "tables": [str(Path(pattern).absolute()) for pattern in patterns],
        "metadata": str(Path(metadata).absolute()) if isinstance(metadata, str | Path) else metadata,
        "columns": dict(columns or {}),
        "control": control,
        "features": features,
        "standardise_by_plate": standardise_by_plate,
        "not_finite": not_finite,
    }
    arguments = json.loads(json.dumps(arguments))
    if out.exists():
        check_made_of(out, arguments)
        said.append(f"{out} was made of the same tables with the same arguments: reused")
        return out
    table = read_profiles(
        patterns, columns=columns or {}, control=control, features=features, metadata=metadata, notes=said
    )
    table = _finite(table, not_finite, said)
    how: dict[str, Any] = {}
    if standardise_by_plate:
        wells, names = schema.split_columns(table)
        values = table[names].to_numpy(np.float32)
        how = {"fit_on": schema.NEGCON, "clip": CLIP, "constant_below": CONSTANT}
        controls = table[wells].assign(**{} if schema.CONTROL_TYPE in wells else {schema.CONTROL_TYPE: ""})
        values = standardise_wells(values, controls, **how)
        table = pd.concat([table[wells], pd.DataFrame(values, columns=names, index=table.index)], axis=1)
    made_by = {"tool": TOOL, "version": __version__, "arguments": arguments, "files": _files(arguments)}
    said += _lacking(table)
    return write_table(table, out, made_by | {"notes": list(said)}, how)


def write_table(
    table: pd.DataFrame, out: str | Path, made_by: Mapping[str, Any], standardised: Mapping[str, Any] | None = None
) -> Path:
    """Write a folder for `FeatureDataset` from a table with canonical columns, all finite; rows keep their order.

    Raises:
        FileExistsError: `out` exists.
        ValueError: two rows have the same source, batch, plate, well and site.
    """
    out = Path(out)
    if out.exists():
        raise FileExistsError(f"{out} exists and is never overwritten: remove it or name another folder")
    names = schema.split_columns(table)[1]
    fields = _fields(table)
    key = [*schema.WELL_KEY, schema.SITE]
    twice = fields.duplicated(key)
    if twice.any():
        well = " ".join(fields.loc[twice.idxmax(), key]).split()
        raise ValueError(
            f"{int(twice.sum())} rows repeat a well, the first is {' '.join(well)}: give one row a well, or one a site with "
            f"{schema.SITE}; single cells are averaged first"
        )
    with write_atomically(out) as partial:
        partial.mkdir()
        np.save(partial / FEATURES, table[names].to_numpy(np.float32)[:, None])
        fields.to_parquet(partial / "fields.parquet", compression="zstd", index=False)
        index = {name: np.zeros(len(fields), dtype) for name, _, dtype in INDEX_COLUMNS}
        index["field"][:], index["foreground"][:] = np.arange(len(fields)), 1
        write_index(partial / "index.arrow", index)
        manifest = {
            "format_version": FORMAT_VERSION,
            "channels": [PROFILE],
            "dtype": "float32",
            "codec": None,
            "crop_size": None,
            "pixel_size_um": None,
            "statistics": {},
            "counts": {
                "samples": len(fields),
                "fields": len(fields),
                "wells": len(fields[list(schema.WELL_KEY)].drop_duplicates()),
                "plates": len(fields[list(schema.PLATE_KEY)].drop_duplicates()),
                "perturbations": int(fields[schema.PERTURBATION].nunique()),
            },
            "shards": [],
            "features": {
                "names": names,
                "shape": [1, len(names)],
                "sha256": sha256_of_file(partial / FEATURES),
                **({STANDARDISED: dict(standardised)} if standardised else {}),
            },
            "made_by": dict(made_by),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return out


def table_of(dataset: FeatureDataset, items: np.ndarray | None = None) -> pd.DataFrame:
    """The profile table of an imported folder: metadata and features of the samples `items`, default all of the split.

    Raises:
        ValueError: the folder holds features of crops.
    """
    if not isinstance(dataset, FeatureDataset) or dataset.names is None:
        raise ValueError(
            f"{dataset.folder} holds features of crops, no profile table: subset its images, or write splits instead"
        )
    items = np.arange(len(dataset)) if items is None else items
    fields = dataset.fields.iloc[dataset.fields_of(items)].reset_index(drop=True)
    return pd.concat([fields, pd.DataFrame(dataset.read(items)[:, 0], columns=list(dataset.names))], axis=1)


def subset_table(dataset: FeatureDataset, items: np.ndarray, out: str | Path) -> Path:
    """Write some wells of an imported folder to a new one, with its splits translated to the new rows; see `table_of`."""
    rows = dataset.rows_of(items)
    made = dataset.manifest["made_by"] | {"subset_of": str(dataset.folder), "wells": len(items)}
    write_table(table_of(dataset, items), out, made, dataset.manifest["features"].get(STANDARDISED))
    for path in sorted((dataset.folder / "splits").glob("*.npy")):
        write_split(out, path.stem, np.flatnonzero(np.isin(rows, read_split(dataset.folder, path.stem))))
    return Path(out)


def check_made_of(out: Path, arguments: Mapping[str, Any]) -> None:
    """Raise FileExistsError unless the folder was imported with these arguments from tables that have not changed since."""
    made = read_manifest(out)["made_by"]
    if made.get("tool") != TOOL or "subset_of" in made:
        raise FileExistsError(f"{out} exists and was not made by `{TOOL}`: name another folder")
    before = made["arguments"]
    for key in sorted(before.keys() | arguments.keys()):
        if before.get(key) != arguments.get(key):
            raise FileExistsError(
                f"{out} was imported with {key}={before.get(key)}, this asks for {arguments.get(key)}: remove it, or name "
                "another folder (data.folder= in a run)"
            )
    finished = (out / MANIFEST).stat().st_mtime
    new = set(_paths(arguments)) - set(made["files"])
    for path, known in made["files"].items():
        if not Path(path).is_file():  # the folder is complete without its sources
            continue
        about = Path(path).stat()
        if about.st_size != known["bytes"] or (about.st_mtime > finished and sha256_of_file(path) != known["sha256"]):
            new.add(path)
    if new:
        raise FileExistsError(
            f"{min(new)} is new or has changed since {out} was imported ({len(new)} such files): remove the folder to "
            "import again, or name another"
        )


def _paths(arguments: Mapping[str, Any]) -> list[str]:
    """The files that an import reads: tables, and text tables under `metadata`."""
    found = [path for pattern in arguments["tables"] for path in glob(pattern, recursive=True)]
    folder = arguments["metadata"]
    if isinstance(folder, str):
        under = Path(folder).rglob("*") if Path(folder).is_dir() else map(Path, glob(folder))
        found += [str(path) for path in under if path.name.endswith((".csv", ".tsv", ".txt", ".csv.gz", ".parquet"))]
    return sorted(set(found))


def _files(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {path: {"bytes": Path(path).stat().st_size, "sha256": sha256_of_file(path)} for path in _paths(arguments)}


def _finite(table: pd.DataFrame, not_finite: str, notes: list[str]) -> pd.DataFrame:
    """The table without the features or wells that have missing or infinite values."""
    if not_finite not in NOT_FINITE:
        raise ValueError(f"not_finite={not_finite!r}: use one of {', '.join(NOT_FINITE)}")
    metadata, names = schema.split_columns(table)
    bad = ~np.isfinite(table[names].to_numpy(np.float32))
    wells, features = bad.any(1), bad.any(0)
    if not wells.any():
        return table
    row, column = np.argwhere(bad)[0]
    place = " ".join(str(table[key].iloc[row]) for key in (schema.PLATE, schema.WELL))
    counts = f"{int(features.sum())} of {len(names)} features, {int(wells.sum())} of {len(table)} wells"
    what = f"values that are missing or not finite in {counts}, the first is {names[column]} of {place}"
    if not_finite == "error" or (features if not_finite == "features" else wells).all():
        raise ValueError(
            f"{what}: leave those features out (--not-finite features), or those wells (--not-finite wells), or impute them"
        )
    notes.append(f"{what}: these {not_finite} are left out")
    if not_finite == "wells":
        return table[~wells].reset_index(drop=True)
    return table[[*metadata, *(name for name, odd in zip(names, features, strict=True) if not odd)]]


def _fields(table: pd.DataFrame) -> pd.DataFrame:
    """Metadata as in the fields of images: every text column of the schema, blank if missing; the cell count a number."""
    known = [column for column in table if column.startswith(schema.PREFIX)]
    text = table[known].astype(object).where(table[known].notna(), "").astype(str)
    text = text.assign(**{column: "" for column in schema.SPELLINGS if column not in (*known, schema.CELL_COUNT)})
    if schema.CELL_COUNT in text:
        text[schema.CELL_COUNT] = pd.to_numeric(text[schema.CELL_COUNT], errors="coerce").fillna(-1.0)
    return text.reset_index(drop=True)


def _lacking(table: pd.DataFrame) -> list[str]:
    """What a training on the table cannot do, for want of metadata; and features without any spread."""
    fields = _fields(table)
    names = schema.split_columns(table)[1]
    said = []
    if not schema.is_treated(fields).any():
        said.append(
            "no well has a perturbation: bags, splits and scores need one (--metadata, --columns perturbation=…)"
        )
    elif not schema.is_negcon(fields).any():
        said.append("no well is a negative control: scores by plate need some (--metadata, --control …)")
    constant = [
        name for name, spread in zip(names, np.ptp(table[names].to_numpy(), axis=0), strict=True) if spread == 0
    ]
    if constant:
        said.append(f"{len(constant)} features are constant and have no effect, e.g. {', '.join(constant[:3])}")
    return said
