"""From a table of fields to a dataset folder: read, choose crops, encode in parallel, write in order."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.data import fields, schema
from morphoclip.data.manifest import MANIFEST, read_manifest
from morphoclip.data.shards import EncodedCrop, ShardWriter, encode_crop
from morphoclip.data.sources import PATH

MODES = ("nuclei", "grid", "random")


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut from a field; see `prepare_dataset`."""

    channels: tuple[str, ...]
    crop_size: int
    mode: str
    crops_per_field: int | None
    bin: int
    pixel_size_um: float
    otsu_factor: float
    min_foreground: float
    codec: str
    seed: int


@dataclass(frozen=True)
class PreparedCrop:
    y: int
    x: int
    foreground: float
    encoded: EncodedCrop


@dataclass(frozen=True)
class PreparedField:
    """One field after reading: its row for fields.parquet, its crops, and its best place where no crop passed.

    `reason` is why the field is quarantined; the rest is then empty.
    """

    row: dict
    crops: tuple[PreparedCrop, ...] = ()
    best: PreparedCrop | None = None
    reason: str = ""


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
    """Make a dataset folder from TIFFs and return its path; the same arguments give the same bytes.

    A field that cannot be read goes to `quarantine.csv` with its reason and the rest goes on. A crop counts if enough
    of its DNA pixels exceed the field's Otsu threshold; a field without nuclei has no foreground. A well none of whose
    crops counts keeps its best one, `qc_no_foreground` 1 in fields.parquet. A finished folder made with the same
    arguments is reused.

    Args:
        sources: a table of fields, from `sources.find_images` or `sources.read_load_data`.
        out: the dataset folder to make.
        metadata: folder with plate maps and annotation tables (see `annotations.annotate`); without it wells are
            known by plate and well alone.
        crop_size: pixels, after binning.
        mode: `nuclei`, a crop a nucleus, centred (shifted inwards at borders); `grid`, crops side by side; `random`.
        crops_per_field: how many random crops (default 16); for the other modes at most this many, drawn at random.
        bin: average bin × bin pixels first.
        pixel_size_um: of the TIFFs, before binning (20x objective, camera binning 2: .598).
        otsu_factor: the foreground threshold is this factor × Otsu (Kim et al.'s code: .7).
        min_foreground: share of DNA pixels above it (Kim et al.: .01).
        codec: `blosc` or `raw`.
        shard_bytes: size of a shard.
        seed: of random crops.
        workers: processes; default: all cores at hand. Their number changes no byte.
        progress: print what will be written, show a bar and a summary.

    Raises:
        FileExistsError: `out` exists and is no dataset, or one made otherwise or before its images changed.
        ValueError: an unknown mode, channels without DNA, or not one field could be used.
    """
    channels = tuple(column.removeprefix(PATH) for column in sources if column.startswith(PATH))
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is none of {', '.join(MODES)}")
    if fields.NUCLEUS_CHANNEL not in channels:
        raise ValueError(f"channels {channels} have no DNA, which finds nuclei and foreground")
    if metadata is not None:
        from morphoclip.data.annotations import annotate

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
            from tqdm import tqdm

            prepared = tqdm(prepared, total=len(sources), unit="field", desc="fields")
        quarantine = _write(writer, prepared)
        _check_any(sources, quarantine)
        quarantine.to_csv(writer.partial / "quarantine.csv", index=False)
        crops = len(writer)
    say(f"{len(sources) - len(quarantine)} fields, {crops} crops, {len(quarantine)} fields quarantined -> {out}")
    for reason in quarantine["reason"][:5]:
        say(f"  quarantined: {reason}")
    return out


def _write(writer: ShardWriter, prepared: Iterator[PreparedField]) -> pd.DataFrame:
    """Append every field's crops, well by well; returns the quarantined fields."""
    quarantined = []
    for _, well in groupby(prepared, key=lambda field: tuple(field.row.get(c, "") for c in _WELL)):
        well = list(well)
        good = [field for field in well if not field.reason]
        quarantined += [field for field in well if field.reason]
        flagged = not any(field.crops for field in good)
        best = max((f.best for f in good if f.best), key=lambda crop: crop.foreground, default=None)
        for field in good:
            row = writer.add_field(field.row | {"qc_no_foreground": float(flagged)})
            for crop in field.crops or ([best] if flagged and field.best is best else []):
                writer.append(crop.encoded, row, crop.y, crop.x, crop.foreground)
    names = {"plate": schema.PLATE, "well": schema.WELL, "site": schema.SITE}
    columns = {"path": [field.row["path"] for field in quarantined]}
    columns |= {name: [field.row.get(column, "") for field in quarantined] for name, column in names.items()}
    return pd.DataFrame(columns | {"reason": [field.reason for field in quarantined]})


_WELL = (schema.SOURCE, schema.BATCH, schema.PLATE, schema.WELL)


def prepare_field(source: Mapping[str, str], settings: CropSettings) -> PreparedField:
    """Read one field and encode its crops; runs in a worker."""
    metadata = {name: value for name, value in source.items() if name.startswith(schema.PREFIX)}
    paths = {channel: source[PATH + channel] for channel in settings.channels}
    try:
        field = fields.bin_field(fields.read_field(paths), settings.bin)
        if min(field.shape[1:]) < settings.crop_size:
            raise fields.FieldError(
                f"{paths[settings.channels[0]]}: field of {field.shape[1:]} px is smaller than crop_size {settings.crop_size}"
            )
    except fields.FieldError as error:
        folder = os.path.dirname(next((path for path in paths.values() if path), ""))
        return PreparedField(metadata | {"path": folder}, reason=str(error))
    description = fields.describe_field(field, settings.channels)
    dna = field[settings.channels.index(fields.NUCLEUS_CHANNEL)]
    centres = fields.find_nuclei(dna, settings.pixel_size_um * settings.bin)
    row = metadata | {schema.CELL_COUNT: len(centres)} | description
    # Otsu splits even noise in two, so a field without nuclei has no foreground at all.
    threshold = settings.otsu_factor * description["otsu_DNA"] if len(centres) else np.inf
    rng = np.random.default_rng([settings.seed, *hashlib.sha256("/".join(metadata.values()).encode()).digest()[:8]])

    def crop(corner: np.ndarray) -> PreparedCrop:
        y, x = map(int, corner)
        pixels = field[:, y : y + settings.crop_size, x : x + settings.crop_size]
        share = fields.foreground(dna, corner, settings.crop_size, threshold)
        return PreparedCrop(y, x, share, encode_crop(pixels, row, settings.channels, settings.codec))

    corners = _corners(dna, centres, threshold, settings, rng)
    passing = [
        c for c in corners if fields.foreground(dna, c, settings.crop_size, threshold) >= settings.min_foreground
    ]
    if settings.crops_per_field is not None and len(passing) > settings.crops_per_field:
        chosen = np.sort(rng.choice(len(passing), settings.crops_per_field, replace=False))
        passing = [passing[i] for i in chosen]
    if passing:
        return PreparedField(row, tuple(crop(corner) for corner in passing))
    candidates = fields.random_crops(dna, threshold, settings.crop_size, 1, rng)
    return PreparedField(row, best=crop(candidates[0]))


def _corners(dna: np.ndarray, centres: np.ndarray, threshold: float, settings: CropSettings, rng) -> np.ndarray:
    if settings.mode == "nuclei":
        return fields.nucleus_crops(centres, dna.shape, settings.crop_size)
    if settings.mode == "grid":
        return fields.grid_crops(dna.shape, settings.crop_size)
    return fields.random_crops(dna, threshold, settings.crop_size, settings.crops_per_field or 16, rng)


def _map_ordered(sources: pd.DataFrame, settings: CropSettings, workers: int | None) -> Iterator[PreparedField]:
    """`prepare_field` over the rows in their order, with few results waiting at any time."""
    rows = (dict(zip(sources.columns, values, strict=True)) for values in sources.itertuples(index=False, name=None))
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers <= 1:
        yield from (prepare_field(row, settings) for row in rows)
        return
    with ProcessPoolExecutor(workers) as pool:
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
        reasons = "\n  ".join(quarantine["reason"][:5])
        raise ValueError(
            f"none of the {len(sources)} fields could be used, nothing was written; the first:\n  {reasons}"
        )


def _version() -> str:
    from importlib.metadata import version

    return version("morphoclip")
