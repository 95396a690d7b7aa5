"""Cached features: writing them, standardising them by plate, and embedding bags of them."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset, FeatureWriter, TableDataset
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.export.provenance import facts_of_training, weights_hash
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.profiling.crops import well_codes
from morphoclip.profiling.normalize import EMBEDDING_PREFIX
from morphoclip.progress import progress_bar

STANDARDISED = "standardised_by_plate"
ROWS = 4096


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
    clip: float = 30.0,
    constant_below: float = 1e-4,
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
        **{key: value for key, value in raw.manifest["features"].items() if key != "shape"},
        STANDARDISED: how | {"fewest_control_crops": int(counts.min())},
    }
    with (
        FeatureWriter(folder, raw, raw.shape, made_by, dtype) as writer,
        progress_bar(codes, unit="plate", desc="standardise", show=progress) as bar,
    ):
        for code in bar:
            own = plate == code
            known = raw.read(np.flatnonzero(own & control))
            mean, deviation = known.mean(0), known.std(0)
            deviation[deviation < constant_below] = 1
            rows = np.flatnonzero(own)
            for chunk in np.split(rows, range(ROWS, len(rows), ROWS)):
                writer.write(chunk, ((raw.read(chunk) - mean) / deviation).clip(-clip, clip))
    return Path(folder)


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
    fields, of_crop = dataset.fields, dataset.fields_of(np.arange(len(dataset)))
    keys = [column for column in schema.PLATE_KEY if column in fields]
    of_field = fields.groupby(keys, dropna=False).ngroup().to_numpy()
    types = fields[schema.CONTROL_TYPE] if schema.CONTROL_TYPE in fields else pd.Series("", index=fields.index)
    plate, control = of_field[of_crop], (types == schema.NEGCON).to_numpy()[of_crop]
    present = np.unique(plate)
    few = present[np.bincount(plate[control], minlength=present.max() + 1)[present] < 2]
    if few.size:
        name = " ".join(fields[keys].iloc[np.flatnonzero(of_field == few[0])[0]].astype(str)).strip()
        raise ValueError(
            f"plate {name} has fewer than two crops of negative controls ({few.size} of {present.size} plates), so it cannot "
            f"be standardised: mark its controls in {schema.CONTROL_TYPE} ({schema.NEGCON!r}), leave the plate out of the "
            "dataset, or write features without --standardise-by-plate"
        )
    return plate, control


def features_made_by(dataset: ShardDataset | TableDataset) -> dict[str, Any] | None:
    """Record of how a folder of features was computed, to compute such features again; None for profile tables."""
    made = getattr(dataset, "manifest", {}).get("features")
    if made is None:
        return None
    config = {key: value for key, value in made.get("encoder", {}).items() if key != "architecture"}
    how = made.get(STANDARDISED)
    return {
        "encoder": config,
        "weights_sha256": made.get("weights_sha256"),
        "scaling": made.get("scaling"),
        STANDARDISED: how and {key: value for key, value in how.items() if key != "fewest_control_crops"},
    }


def features_of_training(folders: Sequence[str | Path]) -> dict[str, Any]:
    """`features_made_by` of folders used together for training.

    Raises:
        ValueError: they were computed differently.
    """
    made = [features_made_by(FeatureDataset(folder)) or {} for folder in folders]
    for folder, other in zip(folders, made, strict=True):
        for what in _differences(made[0], other):
            raise ValueError(
                f"{folders[0]} and {folder} were computed differently: {what} is {made[0][what] or None} and "
                f"{other[what] or None}. Write them with the same encoder, scaling and standardisation"
            )
    return made[0]


def check_same_features(encoder: Encoder | FeatureEncoder, dataset: ShardDataset | TableDataset) -> None:
    """Raise ValueError if features were computed differently from an encoder's training features, as far as recorded."""
    known, given = facts_of_training(encoder).get("features"), features_made_by(dataset)
    if known is None or given is None:
        return
    for what in _differences(known, given):
        wanted, made = known[what], given.get(what)
        remedy = {STANDARDISED: f"with{'' if wanted else 'out'} --standardise-by-plate"}.get(what, "as in training")
        raise ValueError(
            f"the encoder was trained on features with {what} {wanted or None}, but {dataset.folder} has {made or None}: write "
            f"the features again {remedy}"
        )


def _differences(known: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Entries in which two folders of features differ. Backbones are compared by weights, not by path, and entries that
    an older folder does not record are skipped."""

    def compared(what: str, made: Any) -> Any:
        return (
            {k: v for k, v in made.items() if k not in ("backbone", "revision")} if what == "encoder" and made else made
        )

    pairs = {what: (compared(what, known[what]), compared(what, given.get(what))) for what in known}
    return [what for what, (a, b) in pairs.items() if a != b and (what == STANDARDISED or None not in (a, b))]


@torch.inference_mode()
def embed_features(
    encoder: Encoder | FeatureEncoder,
    dataset: FeatureDataset | TableDataset,
    level: str = "well",
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """A profile table from cached features: a bag is all crops of a well, or of all wells of a condition.

    Args:
        encoder: a `FeatureEncoder`; it is moved to `device`, and its training mode is restored afterwards.
        level: `well` or `perturbation` (one row per condition).
        batch_size: bags per forward pass.

    Returns:
        Metadata common to the rows of a bag, then float32 features `embedding_0000`, …

    Raises:
        ValueError: an encoder of images, an unknown level, or as in `check_same_features`.
    """
    if isinstance(encoder, Encoder):
        raise ValueError(f"{encoder.config['name']} takes images, not cached features: use `embed`")
    check_same_features(encoder, dataset)
    if level not in ("well", "perturbation"):
        raise ValueError(f"level={level!r}: use well or perturbation")
    fields = dataset.fields
    if level == "well":
        group = well_codes(fields)
    else:
        group = (
            fields.groupby([c for c in schema.CONDITION if c in fields], sort=True, dropna=False).ngroup().to_numpy()
        )
    code = group[dataset.fields_of(np.arange(len(dataset)))]
    order = np.argsort(code, kind="stable")
    bags = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    training = encoder.training
    encoder.to(device).eval()
    rows = []
    for start in range(0, len(bags), batch_size):
        chunk = bags[start : start + batch_size]
        mask = np.arange(max(map(len, chunk))) < np.array([[len(bag)] for bag in chunk])
        features = np.zeros((*mask.shape, *dataset.shape), np.float32)
        features[mask] = dataset.read(np.concatenate(chunk))
        x = encoder.preprocess(torch.from_numpy(features).to(device))
        rows.append(encoder(x, torch.from_numpy(mask).to(device)).float().cpu().numpy())
    encoder.train(training)
    kept = [c for c in fields if c.startswith(schema.PREFIX) and c != schema.SITE]
    groups = fields[kept].groupby(group, sort=True)
    metadata = groups.first().where(groups.nunique() <= 1, "").loc[np.unique(code)].reset_index(drop=True)
    names = [f"{EMBEDDING_PREFIX}{i:04d}" for i in range(encoder.embed_dim)]
    return pd.concat([metadata.fillna("").astype(str), pd.DataFrame(np.concatenate(rows), columns=names)], axis=1)
