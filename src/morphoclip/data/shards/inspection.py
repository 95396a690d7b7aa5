"""Inspecting a dataset folder: counts, statistics, and verification of every file and sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from morphoclip import schema
from morphoclip.data.shards.dataset import SampleError, ShardDataset
from morphoclip.data.shards.labels import contradiction
from morphoclip.data.shards.manifest import scaling_key
from morphoclip.data.shards.parallel import map_ahead
from morphoclip.data.shards.statistics import channel_sums, summarise

CROPS_A_TASK = 64


def count_crops(dataset: ShardDataset, by: list[str]) -> pd.DataFrame:
    """Numbers of wells, fields and crops of the split per value of the columns `by`, sorted; blank values are a group."""
    crops = np.zeros(len(dataset.fields), np.int64)
    for part in _parts(len(dataset), 2**20):
        np.add.at(crops, dataset.fields_of(part), 1)
    fields = dataset.fields.assign(crops=crops)[crops > 0]
    wells = fields.groupby(list(schema.WELL_KEY), sort=True).ngroup()
    groups = fields.assign(_well=wells).groupby(by, sort=True)
    return pd.DataFrame(
        {"wells": groups["_well"].nunique(), "fields": groups.size(), "crops": groups["crops"].sum()}
    ).reset_index()


def verify(dataset: ShardDataset, workers: int | None = None) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Read and decode every sample of the split, and compare its own json with its rows of the index and of the fields.

    Yields (samples checked, [(index row, fault)]) along the way.
    """
    fields = pd.read_parquet(dataset.folder / "fields.parquet")  # `fields` refuses a table in another order

    def check(items: np.ndarray) -> tuple[int, list[tuple[int, str]]]:
        out, wrong = np.empty(dataset.shape, np.uint16), []
        for row in dataset.rows_of(items).tolist():
            try:
                dataset.read_row(row, out)
                fault = contradiction(dataset, fields, row)
            except (SampleError, OSError) as error:
                fault = str(error)
            if fault is not None:
                wrong.append((row, fault))
        return len(items), wrong

    yield from map_ahead(check, _parts(len(dataset), CROPS_A_TASK), workers)


def check_files(dataset: ShardDataset) -> list[str]:
    """Contradictions between manifest, index and (in a local folder) shard files, found without reading samples."""
    manifest, index, found = dataset.manifest, dataset.index, []
    if manifest["counts"]["samples"] != len(index["field"]):
        found.append(f"index.arrow has {len(index['field'])} rows, the manifest {manifest['counts']['samples']}")
    fields = pq.read_metadata(dataset.folder / "fields.parquet").num_rows
    if manifest["counts"]["fields"] != fields:
        found.append(f"fields.parquet has {fields} rows, the manifest {manifest['counts']['fields']}")
    for shard in manifest["shards"] if dataset.store is None else []:
        path = dataset.folder / "shards" / shard["name"]
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.stat().st_size != shard["nbytes"]:
            found.append(f"{path} has {path.stat().st_size} bytes, the manifest {shard['nbytes']}")
    return found


def channel_statistics(dataset: ShardDataset, workers: int | None = None) -> Iterator[tuple[int, dict]]:
    """Mean and standard deviation of all pixels of the split, as a manifest's `statistics`, raw and scaled.

    Yields (crops so far, their statistics); the last item covers all crops. Sums are float64 and added in order, so the
    number of threads does not change the result.
    """

    def sums(items: np.ndarray) -> tuple[int, np.ndarray]:
        total, out = np.zeros((len(dataset.channels), 4)), np.empty(dataset.shape, np.uint16)
        low, high = dataset.intensities(items)
        for place, row in enumerate(dataset.rows_of(items).tolist()):
            dataset.read_row(row, out)
            total += channel_sums(out, low[place], high[place])
        return len(items), total

    crops, total = 0, np.zeros((len(dataset.channels), 4))
    for count, part in map_ahead(sums, _parts(len(dataset), CROPS_A_TASK), workers):
        crops, total = crops + count, total + part
        yield crops, summarise(total, crops * dataset.shape[1] * dataset.shape[2], scaling_key(*dataset.scaling))


def _parts(size: int, step: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + step, size)) for start in range(0, size, step))
