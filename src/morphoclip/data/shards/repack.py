"""A new dataset from an existing one: a selection of crops, or another codec."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.data.shards.parallel import map_ahead
from morphoclip.data.shards.split_files import read_split, write_split
from morphoclip.data.shards.writer import EncodedCrop, ShardWriter, encode_crop
from morphoclip.progress import progress_bar


def choose_rows(dataset: ShardDataset, where: str | None = None, crops_per_field: int | None = None, seed: int = 0):
    """Items of a dataset whose field satisfies `where`, at most `crops_per_field` random ones per field.

    Args:
        where: a pandas query over the columns of fields.parquet, e.g. `Metadata_Batch == "b1" and otsu_DNA > 300`.

    Raises:
        ValueError: the query fails or leaves no crop.
    """
    items = np.arange(len(dataset))
    if where is not None:
        try:
            kept = dataset.fields.eval(where).to_numpy(bool)
        except Exception as error:  # pandas passes on any error of the expression
            columns = ", ".join(dataset.fields.columns[:12])
            raise ValueError(f"where {where!r} cannot be evaluated ({error}); columns are {columns}, …") from error
        items = items[kept[dataset.fields_of(items)]]
    if crops_per_field is not None:
        order = np.random.default_rng(seed).permutation(len(items))
        field = dataset.fields_of(items[order])
        by_field = np.argsort(field, kind="stable")
        first = np.flatnonzero(np.diff(field[by_field], prepend=-1))
        place = np.arange(len(items)) - np.repeat(first, np.diff(np.append(first, len(items))))
        items = np.sort(items[order[by_field[place < crops_per_field]]])
    if len(items) == 0:
        raise ValueError(f"where {where!r} selects no crop of {dataset.folder}: check its columns and values")
    return items


def repack(
    dataset: ShardDataset,
    out: str | Path,
    codec: str | None = None,
    items: np.ndarray | None = None,
    *,
    shard_bytes: int = 2**28,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the crops `items` (default: all of the split, in order) of a dataset to a new folder `out` and open it.

    The checksum of every crop is verified. Fields without a crop are left out, statistics are those of the crops
    written, and the old splits are translated to the new rows. The manifest records the source.

    Args:
        codec: name of the new codec; None keeps the old one.
        workers: threads; default: all cores. Their number does not change the result.

    Raises:
        SampleError: a crop is damaged.
        FileExistsError: `out` exists.
    """
    items = np.arange(len(dataset)) if items is None else np.asarray(items)
    codec = codec or dataset.manifest["codec"]
    rows = dataset.rows_of(items)
    fields = {field: dataset.fields.iloc[field].to_dict() for field in np.unique(dataset.fields_of(items)).tolist()}

    def encode(item: int) -> tuple[int, EncodedCrop]:
        field = int(dataset.fields_of([item])[0])
        return item, encode_crop(dataset.read([item])[0], fields[field], dataset.channels, codec)

    encoded = map_ahead(encode, items.tolist(), workers)
    if progress:
        encoded = progress_bar(encoded, total=len(items), unit="crop", desc=f"{codec} -> {out}")
    with ShardWriter(
        out,
        dataset.channels,
        codec,
        crop_size=dataset.shape[1],
        pixel_size_um=dataset.pixel_size_um,
        shard_bytes=shard_bytes,
        made_by=_made_by(dataset, codec, rows),
    ) as writer:
        for item, crop in encoded:
            field, row = int(dataset.fields_of([item])[0]), int(dataset.rows_of([item])[0])
            y, x, foreground = (dataset.index[name][row].item() for name in ("y", "x", "foreground"))
            writer.append(crop, writer.add_field(fields[field]), y, x, foreground)
    for path in sorted((dataset.folder / "splits").glob("*.npy")):
        write_split(out, path.stem, np.flatnonzero(np.isin(rows, read_split(dataset.folder, path.stem))))
    return Path(out)


def _made_by(dataset: ShardDataset, codec: str, rows: np.ndarray) -> dict:
    """The old dataset's `made_by` with this repacking added, so that the two can be told apart."""
    made_by = dict(dataset.manifest["made_by"])
    chapter = {
        "from_manifest_sha256": hashlib.sha256(json.dumps(dataset.manifest, sort_keys=True).encode()).hexdigest(),
        "rows_sha256": hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest(),
        "codec": codec,
    }
    return made_by | {"arguments": made_by.get("arguments", {}) | {"codec": codec, "repacked": chapter}}
