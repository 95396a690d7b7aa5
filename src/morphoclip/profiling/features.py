"""Cached features: computing them with an encoder, and standardising them by plate."""

from __future__ import annotations

import glob
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.export.provenance import weights_hash
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.profiling.feature_writer import FeatureWriter
from morphoclip.progress import progress_bar

STANDARDISED = "standardised_by_plate"
ROWS = 4096
CLIP, CONSTANT = 30.0, 1e-4  # of features standardised by plate


@torch.inference_mode()
def write_features(
    encoder: Encoder | FeatureEncoder,
    dataset: ShardDataset,
    folder: str | Path,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    dtype: str = "float16",
    progress: bool = True,
) -> Path:
    """Write the features of every crop of a dataset to a folder for `FeatureDataset`.

    Args:
        encoder: an encoder of `create_encoder`. `per_channel` gives (C, D) per crop, any other one vector, (1, D).
        dataset: the dataset, opened without a split.
        folder: folder to make.
        dtype: type on disk; float16 halves the size.

    Raises:
        FileExistsError: the folder exists.
        ValueError: a feature is not finite, or too large for `dtype`.
    """
    if isinstance(dataset, FeatureDataset):
        raise ValueError(f"{dataset.folder} holds features, no images: give a dataset of crops")
    shape = encoder.feature_shape
    encoder.to(device).eval()
    print(f"writes {len(dataset)} x {shape[0]} x {shape[1]} features to {folder}")
    config, weights = encoder.config, weights_hash(encoder)
    made_by = {"encoder": config, "weights_sha256": weights, "scaling": list(dataset.scaling)}
    with (
        FeatureWriter(folder, dataset, shape, made_by, dtype) as writer,
        progress_bar(total=len(dataset), unit="crop", desc="features", show=progress) as bar,
    ):
        for start in range(0, len(dataset), batch_size):
            rows = np.arange(start, min(start + batch_size, len(dataset)))
            low, high = dataset.intensities(rows)
            pixels = (torch.from_numpy(values).to(device) for values in (dataset.read(rows), low, high))
            features = (
                encoder(encoder.preprocess(*pixels)).float().cpu().numpy().reshape(len(rows), *shape).astype(dtype)
            )
            if not np.isfinite(features).all():
                raise ValueError(f"crops {start} to {rows[-1]} have features too large for {dtype}: use dtype float32")
            writer.write(rows, features)
            bar.update(len(rows))
    return Path(folder)


def standardise_by_plate(
    raw: FeatureDataset | str | Path,
    folder: str | Path,
    *,
    clip: float = CLIP,
    constant_below: float = CONSTANT,
    dtype: str = "float16",
    progress: bool = True,
) -> Path:
    """Write features standardised by the mean and standard deviation of the crops of their plate's negative controls.

    This removes each plate's offset and gain from every feature. The controls of one plate, and at most `ROWS` other
    crops, are in memory at a time.

    Args:
        raw: features of all crops, or their folder.
        folder: folder to make.
        clip: clip standardised features to ± this.
        constant_below: features with a smaller standard deviation among the controls are centred but not scaled.
        dtype: type on disk.

    Raises:
        FileExistsError: the folder exists.
        ValueError: a plate has fewer than two crops of negative controls, or the features are already standardised.
    """
    raw = raw if isinstance(raw, FeatureDataset) else FeatureDataset(raw)
    if STANDARDISED in raw.manifest["features"]:
        raise ValueError(f"{raw.folder} is already standardised by plate: give the features without standardisation")
    plate, control = plates_and_controls(raw)
    codes, counts = np.unique(plate[control], return_counts=True)
    how = {"fit_on": schema.NEGCON, "clip": clip, "constant_below": constant_below}
    made_by = {
        **{key: value for key, value in raw.manifest["features"].items() if key not in ("shape", "sha256")},
        STANDARDISED: how | {"fewest_control_crops": int(counts.min())},
    }
    with (
        FeatureWriter(folder, raw, raw.shape, made_by, dtype) as writer,
        progress_bar(codes, unit="plate", desc="standardise", show=progress) as bar,
    ):
        for code in bar:
            own = plate == code
            mean, deviation = _statistics(raw.read(np.flatnonzero(own & control)), constant_below)
            rows = np.flatnonzero(own)
            for chunk in np.split(rows, range(ROWS, len(rows), ROWS)):
                writer.write(chunk, ((raw.read(chunk) - mean) / deviation).clip(-clip, clip))
    return Path(folder)


def standardise_wells(
    values: np.ndarray, wells: pd.DataFrame, *, clip: float = CLIP, constant_below: float = CONSTANT, **_: object
) -> np.ndarray:
    """Profiles (N, D) standardised as `standardise_by_plate` does, float32; `wells` are their metadata, a row each.

    Raises:
        ValueError: a plate has fewer than two wells of negative controls.
    """
    plate, control = _plates_and_controls(wells, np.arange(len(wells)))
    made = np.empty(values.shape, np.float32)
    for code in np.unique(plate):
        own = plate == code
        mean, deviation = _statistics(values[own & control], constant_below)
        made[own] = ((values[own] - mean) / deviation).clip(-clip, clip)
    return made


def _statistics(controls: np.ndarray, constant_below: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the controls of a plate, 1 where they are constant."""
    deviation = controls.std(0)
    return controls.mean(0), np.where(deviation < constant_below, 1, deviation)


def write_standardised_features(
    encoder: Encoder | FeatureEncoder, dataset: ShardDataset, folder: str | Path, *, dtype: str = "float16", **options
) -> Path:
    """`write_features` followed by `standardise_by_plate`; the intermediate float32 features are removed at the end.

    Raises as both do; all checks come before the first crop is read.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists and is never overwritten: remove it or name another folder")
    plates_and_controls(dataset)
    raw = folder.with_name(f"{folder.name}.partial-raw")
    for left in folder.parent.glob(f"{glob.escape(raw.name)}*"):  # left by a killed run
        shutil.rmtree(left)
    print(f"writes features to {folder}; intermediate features are in {raw} until they are standardised")
    try:
        write_features(encoder, dataset, raw, dtype="float32", **options)
        return standardise_by_plate(raw, folder, dtype=dtype, progress=options.get("progress", True))
    finally:
        shutil.rmtree(raw, ignore_errors=True)


def plates_and_controls(dataset: ShardDataset) -> tuple[np.ndarray, np.ndarray]:
    """Plate code int64 (N,) of each crop, and bool (N,) whether it is a negative control.

    Raises:
        ValueError: a plate has fewer than two crops of negative controls.
    """
    return _plates_and_controls(dataset.fields, dataset.fields_of(np.arange(len(dataset))))


def _plates_and_controls(fields: pd.DataFrame, of_crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keys = [column for column in schema.PLATE_KEY if column in fields]
    of_field = fields.groupby(keys, dropna=False).ngroup().to_numpy()
    types = fields[schema.CONTROL_TYPE] if schema.CONTROL_TYPE in fields else pd.Series("", index=fields.index)
    plate, control = of_field[of_crop], (types == schema.NEGCON).to_numpy()[of_crop]
    present = np.unique(plate)
    few = present[np.bincount(plate[control], minlength=present.max() + 1)[present] < 2]
    if few.size:
        name = " ".join(fields[keys].iloc[np.flatnonzero(of_field == few[0])[0]].astype(str)).strip()
        raise ValueError(
            f"plate {name} has fewer than two crops or wells of negative controls ({few.size} of {present.size} plates), so it "
            f"cannot be standardised: mark its controls in {schema.CONTROL_TYPE} ({schema.NEGCON!r}), leave the plate out of "
            "the dataset, or do without --standardise-by-plate"
        )
    return plate, control
