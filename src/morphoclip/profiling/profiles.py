"""Profile tables written to disk: Parquet with a JSON sidecar, csv(.gz) and AnnData."""

from __future__ import annotations

import json
from collections.abc import Mapping
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.files import write_atomically

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


def read_provenance(path: str | Path) -> dict[Path, dict | None]:
    """The provenance sidecar of each profile table at a path or glob; None if it has none."""
    found = {}
    for table in sorted(map(Path, glob(str(path), recursive=True))):
        sidecar = table.with_name(table.name + ".json")
        found[table] = json.loads(sidecar.read_text()) if sidecar.is_file() else None
    return found


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ValueError(f"{path} is not a profile table: its name must end in one of {SUFFIXES}")
