"""Tables of plates to one file or folder, a plate in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.files import write_atomically
from morphoclip.profiling.profiles import write_profiles


def write_joined(parts: Sequence[Path], path: str | Path, provenance: Mapping[str, object]) -> int:
    """Write the tables of Parquet files below each other, with their sidecar; returns the number of rows.

    Parquet is written part by part, a row group each. Other formats hold the whole table in memory.

    Args:
        parts: files with the same columns, as by `embed`. path, provenance: as `write_profiles`.
    """
    path = Path(path)
    if not path.name.endswith(".parquet"):
        table = pd.concat(map(pd.read_parquet, parts), ignore_index=True)
        write_profiles(table, path, provenance)
        return len(table)
    import pyarrow.parquet as pq

    rows, writer = 0, None
    with write_atomically(path) as partial:
        try:
            for part in parts:
                block = pq.ParquetFile(part).read().replace_schema_metadata(None)
                writer = pq.ParquetWriter(partial, block.schema, compression="zstd") if writer is None else writer
                writer.write_table(block.cast(writer.schema))
                rows += block.num_rows
        finally:
            if writer is not None:
                writer.close()
        with write_atomically(path.with_name(f"{path.name}.json")) as sidecar:
            sidecar.write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return rows


def write_deep_profiler(
    tables: Iterable[pd.DataFrame], folder: str | Path, crop_size: int, provenance: Mapping[str, object]
) -> int:
    """Write DeepProfiler's layout: PLATE/WELL/SITE.npz with the features and centres of a field's crops.

    `features` (n, D) float32, `locations` (n, 2) float64, the centre (x, y) of each crop in pixels, and `metadata`, a dict.
    pycytominer reads it with `DeepProfilerData(index, folder, filename_delimiter="/")`. index.csv lists the fields.

    Args:
        tables: by `embed(level="crop")`, a plate each.
        folder: it must not exist, or be empty. crop_size: in pixels.

    Returns:
        The number of crops.

    Raises:
        ValueError: two plates with the same name.
    """
    total, plates, index = 0, set[str](), []
    with write_atomically(folder) as partial:
        partial.mkdir()
        for table in tables:
            if plates & (own := set(table[schema.PLATE])):
                raise ValueError(
                    f"plate {min(plates & own)} is in two batches, and DeepProfiler's layout has one folder for it"
                )
            plates |= own
            keys = [schema.PLATE, schema.WELL, schema.SITE]
            for (plate, well, site), crops in table.groupby(keys, sort=True):
                path = partial / plate / well / f"{site}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                corners = crops[["Metadata_crop_x", "Metadata_crop_y"]].astype(float).to_numpy()
                metadata = dict(zip(keys, (plate, well, site), strict=True)) | {"Metadata_Model": "embedding"}
                features = crops[schema.split_columns(crops)[1]].to_numpy(np.float32)
                np.savez(
                    path, features=features, locations=corners + crop_size / 2, metadata=np.array(metadata, object)
                )
                index.append(metadata | {"crops": len(crops)})
            total += len(table)
        pd.DataFrame(index).to_csv(partial / "index.csv", index=False)
        (partial / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return total
