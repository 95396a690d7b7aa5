"""Profile tables on disk: Parquet with a JSON sidecar, csv(.gz) and AnnData."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.files import write_atomically

# Numeric columns that are not features: a saved index, CellProfiler's counters, and counts other than the cell count.
_BOOKKEEPING = re.compile(r"Unnamed: \d+|(Image|Object|Table)Number|(Image_)?Count_.+")
_WHOLE = re.compile(r"(-?\d+)\.0+")
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".h5ad")


def write_profiles(table: pd.DataFrame, path: str | Path, provenance: Mapping[str, object]) -> None:
    """Write a profile table and its provenance, `<path>.json`.

    Metadata columns come first, as strings (blank if missing), then features as float32. Both files are written under a
    temporary name and renamed, the table last.

    Args:
        table: `Metadata_*` columns and features.
        path: a name ending in .parquet (zstd), .csv, .csv.gz or .h5ad (needs the `anndata` extra).
        provenance: plain JSON, e.g. `encoder_provenance(encoder)` and the normalisation steps.

    Raises:
        ValueError: unknown ending, or a feature that is not numeric.
    """
    path = Path(path)
    suffix = _suffix(path)
    metadata, features = schema.split_columns(table)
    text = table[metadata].astype(object).where(table[metadata].notna(), "").astype(str)
    table = pd.concat([text, table[features].astype(np.float32)], axis=1)
    with write_atomically(path) as partial:
        if suffix == ".parquet":
            table.to_parquet(partial, compression="zstd", index=False)
        elif suffix == ".h5ad":
            import anndata

            obs = text.set_axis([str(i) for i in range(len(text))])
            anndata.AnnData(table[features].to_numpy(), obs=obs, var=pd.DataFrame(index=features)).write_h5ad(partial)
        else:
            table.to_csv(partial, index=False)
        with write_atomically(path.with_name(f"{path.name}.json")) as sidecar:
            sidecar.write_text(json.dumps(provenance, indent=2) + "\n")


def read_profiles(path: str | Path) -> pd.DataFrame:
    """Read one profile table, or the joined tables of a glob, with canonical column names.

    Metadata are read as strings, blank if missing, so plate ids that look like numbers are unchanged; whole numbers saved
    as floats (24.0) become 24. CellProfiler's Image_Metadata_Plate becomes Metadata_Plate and its Image_Count_Cells the
    cell count; other counts, ImageNumber, ObjectNumber, TableNumber and a saved index are left out with a warning.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: unknown ending, a table without rows, text in a feature column, or tables with different features.
    """
    paths = [Path(p) for p in sorted(glob(str(path), recursive=True))]
    if not paths:
        raise FileNotFoundError(f"no profile table at {path}: check the path, and quote globs on the command line")
    tables = [_read_one(p) for p in paths]
    features = set(schema.split_columns(tables[0])[1])
    for other, table in zip(paths[1:], tables[1:], strict=True):
        if odd := features ^ set(schema.split_columns(table)[1]):
            raise ValueError(
                f"{paths[0]} and {other} differ in {len(odd)} features, e.g. {sorted(odd)[:3]}: "
                "read them one by one and keep the features they share"
            )
    joined = pd.concat(tables, ignore_index=True)
    metadata, names = schema.split_columns(joined)
    joined[metadata] = joined[metadata].fillna("")
    return joined[metadata + names]


def read_provenance(path: str | Path) -> dict[Path, dict | None]:
    """The provenance sidecar of each profile table at a path or glob; None if it has none."""
    found = {}
    for table in sorted(map(Path, glob(str(path), recursive=True))):
        sidecar = table.with_name(table.name + ".json")
        found[table] = json.loads(sidecar.read_text()) if sidecar.is_file() else None
    return found


def _read_one(path: Path) -> pd.DataFrame:
    suffix = _suffix(path)
    if suffix == ".parquet":
        table = pd.read_parquet(path)
    elif suffix == ".h5ad":
        import anndata

        data = anndata.read_h5ad(path)
        x = data.X if isinstance(data.X, np.ndarray) else data.X.toarray()
        table = pd.concat([data.obs, pd.DataFrame(x, columns=data.var_names, index=data.obs.index)], axis=1)
        table = table.reset_index(drop=True)
    else:
        header = pd.read_csv(path, nrows=0).columns
        table = pd.read_csv(path, dtype={c: str for c in header if c.removeprefix("Image_").startswith(schema.PREFIX)})
    if table.empty:
        raise ValueError(f"{path} has no rows")
    table = schema.canonicalize(_without_bookkeeping(table))
    metadata = [c for c in table if c.startswith(schema.PREFIX)]
    try:
        schema.split_columns(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return pd.concat([table[metadata].apply(_as_text), table.drop(columns=metadata)], axis=1)


def _without_bookkeeping(table: pd.DataFrame) -> pd.DataFrame:
    """Rename CellProfiler's image-level metadata and cell count to names of `schema`, and leave out other bookkeeping."""
    renames = {c: c.removeprefix("Image_") for c in table if c.startswith(("Image_Metadata_", "Image_Count_"))}
    table = table.rename(columns={old: new for old, new in renames.items() if new not in table})
    counts = {c for c, name in schema.canonical_columns(list(table)).items() if name == schema.CELL_COUNT}
    dropped = [c for c in table if _BOOKKEEPING.fullmatch(c) and c not in counts]
    if dropped:
        warnings.warn(f"columns {dropped} are bookkeeping, not features, and are left out", stacklevel=4)
    return table.drop(columns=dropped)


def _as_text(column: pd.Series) -> pd.Series:
    """The column as strings, blank if missing; '24.0' becomes '24', since the two depend on the writer only."""
    text = column.astype(object).where(column.notna(), "").astype(str)
    return text.map({value: _WHOLE.sub(r"\1", value) if _WHOLE.fullmatch(value) else value for value in text.unique()})


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ValueError(f"{path} is not a profile table: its name must end in one of {SUFFIXES}")
