"""Profiles by an encoder of features: from cached features, or from the wells of profile tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.export.provenance import facts_of_training
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.profiling.crops import well_codes
from morphoclip.profiling.feature_matching import Alignment, feature_names
from morphoclip.profiling.features import STANDARDISED, standardise_wells
from morphoclip.profiling.normalize import EMBEDDING_PREFIX

LEVELS = ("well", "perturbation")


def features_made_by(dataset: FeatureDataset) -> dict[str, Any]:
    """Record of how a folder of features was computed, to compute such features again; of tables, the features' names."""
    made = dataset.manifest["features"]
    how = made.get(STANDARDISED)
    standardised = how and {key: value for key, value in how.items() if key != "fewest_control_crops"}
    if dataset.names is not None:
        return {"names": list(dataset.names), STANDARDISED: standardised}
    config = {key: value for key, value in made.get("encoder", {}).items() if key != "architecture"}
    return {
        "encoder": config,
        "weights_sha256": made.get("weights_sha256"),
        "scaling": made.get("scaling"),
        STANDARDISED: standardised,
    }


def features_of_training(folders: Sequence[str | Path]) -> dict[str, Any]:
    """`features_made_by` of folders used together for training.

    Raises:
        ValueError: they were computed differently.
    """
    made = [features_made_by(FeatureDataset(folder)) for folder in folders]
    for folder, other in zip(folders, made, strict=True):
        for what in _differences(made[0], other):
            raise ValueError(
                f"{folders[0]} and {folder} were computed differently: {what} is {made[0][what] or None} and "
                f"{other[what] or None}. Write them with the same encoder, scaling and standardisation"
            )
    return made[0]


def check_same_features(encoder: Encoder | FeatureEncoder, dataset: FeatureDataset) -> None:
    """Raise ValueError if features were computed differently from an encoder's training features, as far as recorded."""
    known, given = facts_of_training(encoder).get("features"), features_made_by(dataset)
    if known is None:
        return
    if ("names" in known) != ("names" in given):
        kinds = ["wells of profile tables" if "names" in made else "features of crops" for made in (known, given)]
        raise ValueError(f"the encoder was trained on {kinds[0]}, but {dataset.folder} holds {kinds[1]}")
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
    differing = [what for what, (a, b) in pairs.items() if a != b and (what == STANDARDISED or None not in (a, b))]
    return [what for what in differing if what != "names"]  # matched one by one


def embed_features(
    encoder: Encoder | FeatureEncoder,
    dataset: FeatureDataset,
    level: str = "well",
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """A profile table from a folder of features: a bag is all crops (or rows) of a well, or of all wells of a condition.

    Features of imported tables are matched with those of training by name, see `feature_matching.Alignment`.

    Args:
        encoder: a `FeatureEncoder`; it is moved to `device`, and its training mode is restored afterwards.
        level: `well` or `perturbation` (one row per condition).
        batch_size: bags per forward pass.
        notes: gets what was matched, filled and left out.

    Returns:
        Metadata common to the rows of a bag, then float32 features `embedding_0000`, …

    Raises:
        ValueError: an encoder of images, an unknown level, too few of the encoder's features, or as in
            `check_same_features`.
    """
    check_same_features(encoder, dataset)
    named = isinstance(encoder, FeatureEncoder) and feature_names(encoder) is not None and dataset.names is not None
    alignment = Alignment(cast("FeatureEncoder", encoder), dataset.names or ()) if named else None

    def read(items: np.ndarray) -> np.ndarray:
        values = dataset.read(items)
        return values if alignment is None else alignment(values[:, 0])

    of_sample = dataset.fields_of(np.arange(len(dataset)))
    table = _embed_bags(encoder, read, dataset.shape, dataset.fields, of_sample, level, batch_size, device)
    if alignment is not None and notes is not None:
        notes += alignment.notes
    return table


def embed_table(
    encoder: Encoder | FeatureEncoder,
    table: pd.DataFrame,
    level: str = "well",
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    notes: list[str] | None = None,
) -> pd.DataFrame:
    """Profiles of the wells of a profile table; arguments, result and errors as `embed_features`.

    If the training features were standardised by the negative controls of their plate, those of the table are too.

    Raises:
        ValueError: an encoder that does not record the names of its features; a plate without enough controls.
    """
    if isinstance(encoder, Encoder):
        raise ValueError(
            f"{encoder.config['name']} takes images, not a profile table: give a dataset or a load_data.csv"
        )
    if feature_names(encoder) is None:
        raise ValueError(
            "the encoder was not trained on profile tables, so it has no names to match their features by: give it a "
            "folder of features as in training (morphoclip features), or train it on a table (morphoclip data import)"
        )
    metadata, given = schema.split_columns(table)
    absent = [column for column in (schema.PLATE, schema.WELL) if column not in metadata]
    if absent:
        raise ValueError(f"the table has no {' and no '.join(absent)}; its metadata are {metadata}")
    alignment, wells = Alignment(encoder, given), table[metadata].reset_index(drop=True)
    values = table[given].to_numpy(np.float32)
    how = facts_of_training(encoder)["features"].get(STANDARDISED)
    if how:
        if schema.CONTROL_TYPE not in wells:
            wells = wells.assign(**{schema.CONTROL_TYPE: ""})
        values = standardise_wells(values, wells, **how)
    aligned = alignment(values)
    made = notes if notes is not None else []
    made += alignment.notes  # judges before anything is embedded
    items = np.arange(len(wells))
    return _embed_bags(encoder, aligned.__getitem__, aligned.shape[1:], wells, items, level, batch_size, device)


@torch.inference_mode()
def _embed_bags(
    encoder: Encoder | FeatureEncoder,
    read: Callable[[np.ndarray], np.ndarray],
    shape: Sequence[int],
    fields: pd.DataFrame,
    of_sample: np.ndarray,
    level: str,
    batch_size: int,
    device: str | torch.device,
) -> pd.DataFrame:
    """Profiles of samples that `read` gives, (n, C, D) each, of the rows `of_sample` of `fields`."""
    if isinstance(encoder, Encoder):
        raise ValueError(f"{encoder.config['name']} takes images, not cached features: use `embed`")
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: use well or perturbation")
    if level == "well":
        group = well_codes(fields)
    else:
        group = (
            fields.groupby([c for c in schema.CONDITION if c in fields], sort=True, dropna=False).ngroup().to_numpy()
        )
    code = group[of_sample]
    order = np.argsort(code, kind="stable")
    bags = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    training = encoder.training
    encoder.to(device).eval()
    rows = []
    for start in range(0, len(bags), batch_size):
        chunk = bags[start : start + batch_size]
        mask = np.arange(max(map(len, chunk))) < np.array([[len(bag)] for bag in chunk])
        features = np.zeros((*mask.shape, *shape), np.float32)
        features[mask] = read(np.concatenate(chunk))
        x = encoder.preprocess(torch.from_numpy(features).to(device))
        rows.append(encoder(x, torch.from_numpy(mask).to(device)).float().cpu().numpy())
    encoder.train(training)
    kept = [c for c in fields if c.startswith(schema.PREFIX) and c != schema.SITE]
    groups = fields[kept].groupby(group, sort=True)
    metadata = groups.first().where(groups.nunique() <= 1, "").loc[np.unique(code)].reset_index(drop=True)
    metadata = metadata.fillna("").astype(str)
    if schema.CELL_COUNT in metadata:
        metadata[schema.CELL_COUNT] = metadata[schema.CELL_COUNT].replace({"-1": "", "-1.0": ""})
    names = [f"{EMBEDDING_PREFIX}{i:04d}" for i in range(encoder.embed_dim)]
    return pd.concat([metadata, pd.DataFrame(np.concatenate(rows), columns=names)], axis=1)
