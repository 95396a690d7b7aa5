"""Profile tables on disk: Parquet with a JSON sidecar, csv(.gz) and AnnData (DESIGN §3.7)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.data import schema

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".h5ad")


def write_profiles(table: pd.DataFrame, path: str | Path, provenance: Mapping[str, object]) -> None:
    """Write a profile table, and beside it `<path>.json` with what made it.

    Metadata columns become strings (blank where missing) and come first, features float32. Both files are written under
    a temporary name and renamed, the table last.

    Args:
        table: `Metadata_*` columns and features.
        path: ends in .parquet (zstd), .csv, .csv.gz or .h5ad (needs the `anndata` extra).
        provenance: plain JSON, e.g. `encoder_provenance(encoder)` with the steps applied.

    Raises:
        ValueError: unknown ending, or a feature that is not numeric.
    """
    path = Path(path)
    suffix = _suffix(path)
    metadata, features = schema.split_columns(table)
    text = table[metadata].astype(object).where(table[metadata].notna(), "").astype(str)
    table = pd.concat([text, table[features].astype(np.float32)], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{suffix}")
    if suffix == ".parquet":
        table.to_parquet(partial, compression="zstd", index=False)
    elif suffix == ".h5ad":
        import anndata

        obs = text.set_axis([str(i) for i in range(len(text))])
        anndata.AnnData(table[features].to_numpy(), obs=obs, var=pd.DataFrame(index=features)).write_h5ad(partial)
    else:
        table.to_csv(partial, index=False)
    sidecar = path.with_name(path.name + ".json")
    partial_sidecar = sidecar.with_name(sidecar.name + ".partial")
    partial_sidecar.write_text(json.dumps(provenance, indent=2) + "\n")
    os.replace(partial_sidecar, sidecar)
    os.replace(partial, path)


def read_profiles(path: str | Path) -> pd.DataFrame:
    """Read one profile table, or all those a glob matches one below the other, in canonical column names.

    Metadata come as strings, blank where missing, so a plate id that looks like a number stays what it is.

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: unknown ending, text in a feature column, or tables with different features.
    """
    paths = [Path(p) for p in sorted(glob(str(path), recursive=True))]
    if not paths:
        raise FileNotFoundError(f"no profile table at {path}")
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
    """What the sidecar of each profile table at a path or glob says of its making; None where it has none."""
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
        table = pd.read_csv(path, dtype={c: str for c in header if c.startswith(schema.PREFIX)})
    table = schema.canonicalize(table)
    metadata = [c for c in table if c.startswith(schema.PREFIX)]
    text = table[metadata].astype(object)
    try:
        schema.split_columns(table)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return pd.concat([text.where(text.notna(), "").astype(str), table.drop(columns=metadata)], axis=1)


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ValueError(f"{path} is no profile table: its name ends in none of {SUFFIXES}")
