"""A table of fields ▶ a dataset folder: read, choose crops, encode in parallel, write in order."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import pandas as pd

from morphoclip import schema
from morphoclip.data.shards.intensities import NUCLEUS_CHANNEL
from morphoclip.data.shards.manifest import MANIFEST, read_manifest
from morphoclip.data.shards.statistics import refuse_constant
from morphoclip.data.shards.writer import ShardWriter
from morphoclip.preparation import fields
from morphoclip.preparation.crops import MODES, CropSettings, PreparedField, prepare_field
from morphoclip.preparation.sources import PATH
from morphoclip.progress import progress_bar


def prepare_dataset(
    sources: pd.DataFrame,
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    crop_size: int = 64,
    mode: str = "nuclei",
    crops_per_field: int | None = None,
    bin: int = 1,
    pixel_size_um: float = 0.598,
    otsu_factor: float = 1.0,
    min_foreground: float = fields.MIN_FOREGROUND,
    codec: str = "blosc",
    shard_bytes: int = 2**28,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Make a dataset folder from TIFFs; the same arguments give the same bytes.

    A field that cannot be read is listed in `quarantine.csv` with the reason, and the others are processed. A crop is
    kept if enough of its DNA pixels exceed the field's Otsu threshold; a field without nuclei has no foreground. A well
    without such crops keeps its best one and gets `qc_no_foreground` = 1 in fields.parquet. A finished folder made with
    the same arguments is reused.

    Args:
        sources: a table of fields from `sources.find_images` or `sources.read_load_data`.
        out: the dataset folder to make.
        metadata: folder with plate maps and annotation tables (see `annotations.annotate`); without it only plate and
            well are known.
        crop_size: pixels, after binning.
        mode: `nuclei`, one centred crop per nucleus (shifted inwards at borders); `grid`, adjacent crops; `random`.
        crops_per_field: number of random crops (default 16); for the other modes the maximum, drawn at random.
        bin: average bin × bin pixels first.
        pixel_size_um: pixel size of the TIFFs, before binning (20x objective, camera binning 2: .598).
        otsu_factor: the foreground threshold is this factor × Otsu (Kim et al.'s code: .7).
        min_foreground: minimum fraction of DNA pixels above the threshold (Kim et al.: .01).
        codec: see `codecs`.
        shard_bytes: size of a shard.
        seed: seed of random crops.
        workers: processes; default: all available cores. The result does not depend on it.
        progress: print what will be written, a progress bar and a summary.

    Raises:
        FileExistsError: `out` exists and is not a dataset, or was made with other arguments or from older images.
        ValueError: an unknown mode, no DNA channel, no usable field, or a constant channel.
    """
    channels = tuple(column.removeprefix(PATH) for column in sources if column.startswith(PATH))
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: use one of {', '.join(MODES)}")
    if NUCLEUS_CHANNEL not in channels:
        raise ValueError(f"channels {channels} do not include DNA, which is needed to find nuclei and foreground")
    if metadata is not None:
        from morphoclip.data.metadata.annotations import annotate

        sources = annotate(sources, metadata)
    settings = CropSettings(
        channels, crop_size, mode, crops_per_field, bin, pixel_size_um, otsu_factor, min_foreground, codec, seed
    )
    arguments = json.loads(json.dumps(asdict(settings))) | {"shard_bytes": shard_bytes, "fields": _digest(sources)}
    out = Path(out)
    say = print if progress else lambda line: None
    if (out / MANIFEST).is_file():
        _check_same(out, arguments, sources)
        say(f"{out} was made with the same arguments: reused")
        return out
    plates = sources[schema.PLATE].nunique()
    say(
        f"{len(sources)} fields of {plates} plates, channels {' '.join(channels)} -> {out}\n"
        f"  {mode} crops of {crop_size} px ({crop_size * bin * pixel_size_um:.3g} µm), codec {codec}"
    )
    made_by = {"tool": f"morphoclip {_version()}", "command": "prepare_dataset", "arguments": arguments}
    with ShardWriter(
        out,
        channels,
        codec,
        crop_size=crop_size,
        pixel_size_um=pixel_size_um * bin,
        shard_bytes=shard_bytes,
        made_by=made_by,
    ) as writer:
        prepared = _map_ordered(sources, settings, workers)
        if progress:
            prepared = progress_bar(prepared, total=len(sources), unit="field", desc="fields")
        quarantine = _write(writer, prepared)
        _check_any(sources, quarantine)
        refuse_constant(
            channels, writer.deviations(), f"all crops of plates {', '.join(sources[schema.PLATE].unique())}"
        )
        quarantine.to_csv(writer.partial / "quarantine.csv", index=False)
        crops = len(writer)
    say(f"{len(sources) - len(quarantine)} fields, {crops} crops, {len(quarantine)} fields quarantined -> {out}")
    for path, reason in quarantine[["path", "reason"]].head().itertuples(index=False):
        say(f"  quarantined {path}: {reason}")
    return out


def _write(writer: ShardWriter, prepared: Iterator[PreparedField]) -> pd.DataFrame:
    """Append the crops of all fields, well by well; returns the quarantined fields."""
    quarantined = []
    for _, group in groupby(prepared, key=lambda field: tuple(field.row.get(c, "") for c in schema.WELL_KEY)):
        well = list(group)
        good = [field for field in well if not field.reason]
        quarantined += [field for field in well if field.reason]
        flagged = not any(field.crops for field in good)
        best = max((f.best for f in good if f.best), key=lambda crop: crop.foreground, default=None)
        for field in good:
            row = writer.add_field(field.row | {"qc_no_foreground": float(flagged)})
            kept = [best] if best is not None and flagged and field.best is best else []
            for crop in field.crops or kept:
                writer.append(crop.encoded, row, crop.y, crop.x, crop.foreground)
    names = {"plate": schema.PLATE, "well": schema.WELL, "site": schema.SITE}
    columns = {"path": [field.row["path"] for field in quarantined]}
    columns |= {name: [field.row.get(column, "") for field in quarantined] for name, column in names.items()}
    return pd.DataFrame(columns | {"reason": [field.reason for field in quarantined]})


def _map_ordered(sources: pd.DataFrame, settings: CropSettings, workers: int | None) -> Iterator[PreparedField]:
    """`prepare_field` for all rows in order, with few results waiting at any time."""
    rows = (dict(zip(sources.columns, values, strict=True)) for values in sources.itertuples(index=False, name=None))
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers <= 1:
        yield from (prepare_field(row, settings) for row in rows)
        return
    # Forked children start at once and need no importable main module; outside Linux forking is unsafe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque = deque()
        for row in rows:
            waiting.append(pool.submit(prepare_field, row, settings))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _digest(sources: pd.DataFrame) -> str:
    return hashlib.sha256(sources.to_csv(index=False).encode()).hexdigest()[:16]


def _check_same(out: Path, arguments: dict, sources: pd.DataFrame) -> None:
    made = read_manifest(out)["made_by"].get("arguments", {})
    differing = sorted(key for key in made.keys() | arguments.keys() if made.get(key) != arguments.get(key))
    if differing:
        raise FileExistsError(
            f"{out} was made with other arguments ({', '.join(differing)}): remove it or write to another folder"
        )
    finished = (out / MANIFEST).stat().st_mtime
    for column in (c for c in sources if c.startswith(PATH)):
        for path in sources[column]:
            if path and "://" not in path and os.path.exists(path) and os.stat(path).st_mtime > finished:
                raise FileExistsError(f"{path} is newer than {out}: remove the dataset to make it again")


def _check_any(sources: pd.DataFrame, quarantine: pd.DataFrame) -> None:
    if len(quarantine) == len(sources):
        first = "\n  ".join((quarantine["path"] + ": " + quarantine["reason"]).head())
        raise ValueError(f"none of the {len(sources)} fields could be used, nothing was written:\n  {first}")


def _version() -> str:
    from importlib.metadata import version

    return version("morphoclip")
