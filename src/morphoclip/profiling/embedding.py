"""Images ▶ profiles: run an encoder on every crop and average by site, well or perturbation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.export.provenance import SCALING, facts_of_training
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.preparation.sources import is_images
from morphoclip.profiling.aggregation import consensus, reduce_runs, reduction
from morphoclip.profiling.crops import Crops, DatasetCrops
from morphoclip.profiling.encoding import CropSource, Run, encoded
from morphoclip.profiling.field_crops import FieldCrops
from morphoclip.profiling.normalize import EMBEDDING_PREFIX

LEVELS = ("crop", "site", "well", "perturbation")
LACKING = "Metadata_low_foreground"


def embed(
    encoder: Encoder | FeatureEncoder,
    source: ShardDataset | str | Path,
    level: str = "well",
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    progress: bool = True,
    reduce: str = "mean",
    within: str = "all",
    min_foreground: float | None = None,
    num_workers: int = 0,
    precision: str = "float32",
    notes: list[str] | None = None,
    **crop_options: Any,
) -> pd.DataFrame:
    """A profile table of all images in `source`.

    Crops are read well by well, and features are held for one well at a time, so memory grows with the table and not with
    the number of crops.

    Args:
        encoder: an `Encoder`, or a module with its `channels`, `embed_dim`, `preprocess` and `forward`. It is moved to
            `device`, and its training mode is restored afterwards.
        source: a `ShardDataset` (its split, its intensity scaling), a dataset folder, or a load_data.csv or a folder of
            TIFFs whose fields are cut on the fly. For an encoder of features a `FeatureDataset` or its folder, or profile
            tables (a path or glob) whose features are matched by name; then profiles are of wells or perturbations, and
            the options of crops are ignored.
        level: `crop`, `site`, `well` (crops averaged by site, sites by well) or `perturbation` (wells by condition).
        batch_size: crops per forward pass.
        progress: show a progress bar.
        reduce: `mean` or `median`, at every level.
        within: for `perturbation`, one row per `batch`, per `source` or over `all`.
        min_foreground: crops with a smaller fraction of nuclear pixels are left out; a well without others keeps its
            best one, with `Metadata_low_foreground` set. None for the dataset's own minimum, as in training.
        num_workers: threads that read and decode a dataset ahead, or processes that read and cut the fields of a csv.
        precision: `float32`, or `bf16` for a forward pass in bfloat16, for which a feature depends on its batch.
        notes: gets what was matched, filled and left out of a profile table.
        crop_options: for profile tables, arguments of `read_profiles`; for a load_data.csv, arguments of `FieldCrops`
            (`crop_size`, `mode`, `metadata`, …). Default: those
            of the encoder's training data, if recorded.

    Returns:
        `Metadata_*` columns of the fields as strings, then float32 features `embedding_0000`, … `Metadata_cell_count`
        of a well is the mean over its sites.

    Raises:
        ValueError: channels, pixel size or intensity scaling differ from the encoder's, or a feature is not finite.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: use one of {LEVELS}")
    reduction(reduce)
    if isinstance(encoder, FeatureEncoder):
        return _embed_features(encoder, source, level, device, notes, crop_options)
    crop_options |= {"min_foreground": min_foreground, "num_workers": num_workers}
    crops = open_crops(encoder, source, batch_size, **crop_options)
    run = Run(batch_size, torch.device(device), precision)
    table = tabulate(
        encoded(encoder, crops, run, progress), crops, "well" if level == "perturbation" else level, reduce
    )
    return consensus(table, within, reduce) if level == "perturbation" else table


def tabulate(
    encoded: Iterable[tuple[Crops, np.ndarray]], crops: CropSource, level: str, reduce: str = "mean"
) -> pd.DataFrame:
    """The table of a stream of crops and features, by `crop`, `site` or `well`; all crops of a well are in the stream."""
    if level == "crop":
        return _crop_table(encoded, crops)
    lacking: set[int] = set()
    rows = reduce_runs(_by_field(encoded, lacking), reduce)
    if level == "site":
        keys, features = _collect(rows)
        return _table(crops.fields.iloc[keys], features, np.isin(keys, sorted(lacking)))
    keys, features = _collect(reduce_runs(((int(crops.well[field]), row) for field, row in rows), reduce))
    own = np.isin(crops.well, keys)
    metadata = _well_metadata(crops.fields[own], crops.well[own]).loc[keys]
    return _table(metadata, features, np.isin(keys, crops.well[sorted(lacking)]))


def _collect(rows: Iterable[tuple[int, np.ndarray]]) -> tuple[list[int], np.ndarray]:
    keys, features = [], []
    for key, row in rows:
        keys.append(key)
        features.append(row.astype(np.float32))
    _check_any(features)
    return keys, np.concatenate(features)


def _check_any(features: list[np.ndarray]) -> None:
    if not features:
        raise ValueError("there are no crops to embed: the split is empty or no field could be read")


def check_match(encoder: Encoder | FeatureEncoder, crops: CropSource) -> None:
    """Raise ValueError if the data do not fit the encoder; facts that are not recorded are not compared."""
    if tuple(encoder.channels) != tuple(crops.channels):
        raise ValueError(
            f"the encoder takes channels {list(encoder.channels)}, but the data have {list(crops.channels)}: "
            "order and names must be the same; prepare the data again with channels in the encoder's order"
        )
    known = facts_of_training(encoder)
    size = known.get("pixel_size_um")
    if size and crops.pixel_size_um and not np.isclose(size, crops.pixel_size_um, rtol=0.02):
        raise ValueError(
            f"the encoder was trained at {size} µm per pixel, but the data have {crops.pixel_size_um} µm: "
            "bin or prepare the data at the encoder's pixel size"
        )
    _check_size(encoder, crops.crop_size)
    scaling = tuple(known.get(key) for key in SCALING)
    if None not in scaling and scaling != tuple(crops.scaling):
        raise ValueError(
            f"the encoder was trained on intensities scaled by {scaling}, but the data are scaled by {crops.scaling}: "
            "open the dataset with the encoder's scale_by, low_percentile and high_percentile"
        )


def _check_size(encoder: Encoder | FeatureEncoder, crop_size: int) -> None:
    """Raise ValueError for crops of a size that a vision transformer does not take."""
    patches = getattr(encoder.backbone, "patch_embed", None) if isinstance(encoder, Encoder) else None
    size = getattr(patches, "img_size", None)
    if isinstance(size, tuple) and getattr(patches, "strict_img_size", False) and (crop_size, crop_size) != tuple(size):
        raise ValueError(
            f"the encoder takes crops of {size[0]} px, but the data have {crop_size} px: prepare them with --crop-size {size[0]}"
        )
    patch = getattr(patches, "patch_size", None)
    if isinstance(patch, tuple) and not getattr(patches, "dynamic_img_pad", False) and crop_size % patch[0]:
        raise ValueError(f"crops of {crop_size} px cannot be divided into the encoder's patches of {patch[0]} px")


def open_dataset(encoder: Encoder | FeatureEncoder, folder: str | Path) -> ShardDataset:
    """A dataset folder with the encoder's intensity scaling, or for an encoder of cached features a folder of those."""
    if isinstance(encoder, FeatureEncoder):
        return FeatureDataset(folder)
    known = facts_of_training(encoder)
    return ShardDataset(folder, **{key: known[key] for key in SCALING if key in known})


def _embed_features(
    encoder: FeatureEncoder,
    source: ShardDataset | str | Path,
    level: str,
    device,
    notes: list[str] | None,
    options: dict,
) -> pd.DataFrame:
    from morphoclip.profiling.feature_embedding import embed_features, embed_table
    from morphoclip.profiling.reading.tables import read_profiles

    if isinstance(source, ShardDataset) or Path(source).is_dir():
        dataset = source if isinstance(source, ShardDataset) else open_dataset(encoder, source)
        return embed_features(encoder, cast("FeatureDataset", dataset), level, device=device, notes=notes)
    table = read_profiles(str(source), notes=notes, **{"columns": {}, **options})
    return embed_table(encoder, table, level, device=device, notes=notes)


def open_crops(
    encoder: Encoder | FeatureEncoder, source: ShardDataset | str | Path, batch_size: int, **options: object
) -> CropSource:
    """The crops of a source, cut and scaled as the encoder's training data; `options` as `crop_options` of `embed`.

    Raises:
        ValueError: the data do not fit the encoder, see `check_match`, or its crop size is not known.
    """
    crops = _open(source, encoder, batch_size, options)
    check_match(encoder, crops)
    return crops


def _open(
    source: ShardDataset | str | Path, encoder: Encoder | FeatureEncoder, batch_size: int, options: dict
) -> CropSource:
    if isinstance(source, ShardDataset):
        return DatasetCrops(source, batch_size, **options)
    known = facts_of_training(encoder)
    if Path(source).is_dir() and not is_images(source):
        return DatasetCrops(open_dataset(encoder, source), batch_size, **options)
    scaling = {key: known[key] for key in SCALING if key in known}
    size = {key: known[key] for key in ("crop_size",) if key in known}
    said = {key: value for key, value in options.items() if value is not None}
    options = scaling | size | known.get("cropping", {}) | said
    if "crop_size" not in options:
        raise ValueError("this encoder does not record its crop size: give crop_size=<pixels>")
    return FieldCrops(source, encoder.channels, **options)


def _by_field(encoded: Iterable[tuple[Crops, np.ndarray]], lacking: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (field, features of its consecutive crops); adds fields without enough foreground to `lacking`."""
    for part, features in encoded:
        lacking.update(part.field[part.lacking].tolist())
        for rows in np.split(np.arange(len(part)), np.flatnonzero(np.diff(part.field)) + 1):
            yield int(part.field[rows[0]]), features[rows]


def _crop_table(encoded: Iterable[tuple[Crops, np.ndarray]], crops: CropSource) -> pd.DataFrame:
    origins, features = [], []
    for part, rows in encoded:
        origins.append(pd.DataFrame({"field": part.field, "y": part.y, "x": part.x, "lacking": part.lacking}))
        features.append(rows)
    _check_any(features)
    origin = pd.concat(origins, ignore_index=True)
    corner = {"Metadata_crop_y": origin["y"].to_numpy(), "Metadata_crop_x": origin["x"].to_numpy()}
    metadata = crops.fields.iloc[origin["field"]].assign(**corner)
    return _table(metadata, np.concatenate(features), origin["lacking"].to_numpy())


def _well_metadata(fields: pd.DataFrame, well: np.ndarray) -> pd.DataFrame:
    """One row per well, in order of its code: metadata common to its sites, and their mean cell count."""
    metadata = fields[[c for c in fields if c.startswith(schema.PREFIX) and c != schema.SITE]]
    groups = metadata.groupby(well, sort=True)
    table = groups.first().where(groups.nunique() <= 1, "")
    if schema.CELL_COUNT in metadata:
        count = metadata[schema.CELL_COUNT].astype(float)
        table[schema.CELL_COUNT] = count.where(count >= 0).groupby(well).mean()
    return table


def _table(metadata: pd.DataFrame, features: np.ndarray, lacking: np.ndarray) -> pd.DataFrame:
    metadata = metadata[[c for c in metadata if c.startswith(schema.PREFIX)]].reset_index(drop=True)
    text = metadata.astype(object).where(metadata.notna(), "").astype(str)
    if schema.CELL_COUNT in text:
        text[schema.CELL_COUNT] = text[schema.CELL_COUNT].replace({"-1": "", "-1.0": ""})
    text[LACKING] = np.where(lacking, "True", "")
    names = [f"{EMBEDDING_PREFIX}{i:04d}" for i in range(features.shape[1])]
    return pd.concat([text, pd.DataFrame(features, columns=names)], axis=1)
