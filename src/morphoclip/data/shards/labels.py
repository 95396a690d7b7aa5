"""What a sample's own json says, beside the rows of the index and of fields.parquet that it belongs to.

A crop finds its plate and well by row numbers: a table whose rows were sorted anew would give it another well's labels.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from morphoclip import schema

IDENTITY = (*schema.WELL_KEY, schema.SITE)  # columns that name a field
LOOKED_AT = 32  # samples, on opening


class Labelled(Protocol):
    """The part of a `ShardDataset` used here."""

    root: str
    store: Any
    manifest: dict
    index: dict[str, np.ndarray]

    def read_bytes(self, shard: int, buffers: list, offset: int) -> int: ...


def read_label(dataset: Labelled, row: int) -> dict | None:
    """The json that lies in the shard behind the crop of an index row; None if there is none."""
    shard, nbytes, offset = (int(dataset.index[name][row]) for name in ("shard", "nbytes", "offset"))
    offset += -(-nbytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    header = bytearray(tarfile.BLOCKSIZE)
    dataset.read_bytes(shard, [header], offset)
    try:
        member = tarfile.TarInfo.frombuf(bytes(header), "utf-8", "strict")
        content = bytearray(member.size)
        dataset.read_bytes(shard, [content], offset + tarfile.BLOCKSIZE)
        return json.loads(content) if member.name == f"{row:09d}.json" else None
    except (tarfile.TarError, ValueError):
        return None


def contradiction(
    dataset: Labelled, fields: pd.DataFrame, row: int, columns: Sequence[str] | None = None
) -> str | None:
    """How a sample's json differs from its row of the index and of `fields`; None if it does not, or there is no json.

    Args:
        columns: the `Metadata_` columns compared; default: those in the json, and those that name a field.
    """
    label = read_label(dataset, row)
    if label is None:
        return None
    field = int(dataset.index["field"][row])
    own = fields.iloc[field]
    names = columns or [*IDENTITY, *(name for name in label if name.startswith(schema.PREFIX) and name not in IDENTITY)]
    wrong = {name: (label.get(name, ""), own.get(name, "")) for name in names if _text(label, name) != _text(own, name)}
    if columns is None:
        for name in ("field", "y", "x", "crc32"):
            if name in label and int(label[name]) != int(dataset.index[name][row]):
                wrong[name] = (label[name], int(dataset.index[name][row]))
    if not wrong:
        return None
    said = ", ".join(f"{name} {theirs!r} (the tables: {ours!r})" for name, (theirs, ours) in wrong.items())
    return (
        f"{dataset.root}: sample {row:09d} says {said}: rows of fields.parquet (row {field}) or index.arrow are not in the order in "
        "which they were written; restore the files, or add columns without sorting the rows"
    )


def _text(values: Mapping | pd.Series, name: str) -> str:
    value = values.get(name, "")
    return "" if value is None or value != value else str(value)  # NaN differs from itself


def check_labels(dataset: Labelled, fields: pd.DataFrame) -> None:
    """Compare a few samples of a local dataset, spread evenly, with the rows that name their fields.

    Raises:
        ValueError: a sample is of another field than its row says.
    """
    count = len(dataset.index["field"])
    if dataset.store is not None or not dataset.manifest["shards"] or not count:  # a bucket, or cached features
        return
    for row in np.unique(np.linspace(0, count - 1, LOOKED_AT).astype(int)):
        try:
            wrong = contradiction(dataset, fields, int(row), IDENTITY)
        except OSError:  # a missing shard is reported when it is read
            continue
        if wrong:
            raise ValueError(wrong)
