"""index.arrow: a row per sample, one uncompressed record batch whose columns are memory-mapped."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np

# Columns of index.arrow, one row per crop: (name, array.array type code, numpy dtype).
INDEX_COLUMNS = (
    ("shard", "i", np.int32),
    ("offset", "q", np.int64),
    ("nbytes", "i", np.int32),
    ("crc32", "I", np.uint32),
    ("field", "i", np.int32),
    ("y", "i", np.int32),
    ("x", "i", np.int32),
    ("foreground", "f", np.float32),
)


def write_index(path: Path, columns: Mapping[str, array | np.ndarray]) -> None:
    """Write one uncompressed record batch, so that every column can be mapped as one contiguous array."""
    import pyarrow as pa

    types = {name: dtype for name, _, dtype in INDEX_COLUMNS}
    table = pa.table({name: pa.array(np.frombuffer(values, types[name])) for name, values in columns.items()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def map_index(path: Path) -> dict[str, np.ndarray]:
    """The columns of index.arrow, memory-mapped."""
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return {name: table[name].chunk(0).to_numpy(zero_copy_only=True) for name in table.column_names}
