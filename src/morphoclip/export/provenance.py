"""Provenance of an encoder: hashes of its weights, and facts of its training data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import nn

from morphoclip import schema
from morphoclip.checkpoints import tensors_hash
from morphoclip.export.weights import plain_names
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.version import __version__

CROPPING = ("mode", "bin", "pixel_size_um", "otsu_factor", "min_foreground", "crops_per_field", "seed")


SCALING = ("scale_by", "low_percentile", "high_percentile")


@runtime_checkable
class RecordsTraining(Protocol):
    """An encoder that records its training data. This is optional for your own encoders."""

    trained_on: dict[str, Any]


def facts_of_training(encoder: Encoder | FeatureEncoder) -> dict[str, Any]:
    """An encoder's `trained_on`; empty if it has none."""
    return dict(encoder.trained_on) if isinstance(encoder, RecordsTraining) else {}


def training_data(dataset) -> dict[str, object]:
    """Facts of the `ShardDataset` an encoder was trained on, for its users, as plain JSON.

    Pixel size, crop size and intensity scaling, which `embed` compares with new data; `cropping`, the settings of
    cutting crops (its `pixel_size_um` is that of the TIFFs, before binning); `counts` of plates, wells, perturbations and
    crops of the dataset's split; and the manifest's sha256, of profile tables this alone.
    """
    manifest = dataset.manifest
    if manifest["crop_size"] is None:  # profile tables
        return {"manifest_sha256": manifest_hash(manifest)}
    made_with = manifest["made_by"].get("arguments", {})
    return {
        "pixel_size_um": manifest["pixel_size_um"],
        "crop_size": manifest["crop_size"],
        **dict(zip(SCALING, dataset.scaling, strict=True)),
        "cropping": {key: made_with[key] for key in CROPPING if key in made_with},
        "counts": counts_of(dataset),
        "manifest_sha256": manifest_hash(manifest),
    }


def counts_of(dataset) -> dict[str, int]:
    """Numbers of plates, wells, perturbations (negative controls are one) and crops in the split of a `ShardDataset`."""
    fields = dataset.fields.iloc[dataset.present]
    counts = {}
    for name, key in (("plates", schema.PLATE_KEY), ("wells", schema.WELL_KEY)):
        columns = [column for column in key if column in fields]
        counts[name] = len(fields[columns].drop_duplicates()) if columns else 0
    if schema.PERTURBATION in fields:
        known = fields[schema.PERTURBATION]
        counts["perturbations"] = int(known[known.notna() & (known != "")].nunique())
    return counts | {"crops": len(dataset)}


def manifest_hash(manifest: Mapping[str, Any]) -> str:
    """sha256 of a dataset's manifest, independent of how its file is laid out."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def encoder_hash(encoder: Encoder | FeatureEncoder) -> str:
    """sha256 over an encoder's config and weights, independent of the file they were loaded from."""
    return weights_hash(encoder, json.dumps(encoder.config, sort_keys=True))


def weights_hash(module: nn.Module, config: str = "") -> str:
    """sha256 over `config` and then the weights of a module."""
    return tensors_hash(plain_names(module.state_dict()), config)


def encoder_provenance(encoder: Encoder | FeatureEncoder) -> dict[str, object]:
    """The entry on the encoder in a profile table's sidecar."""
    return {
        "encoder_sha256": encoder_hash(encoder),
        "encoder": encoder.config,
        "trained_on": facts_of_training(encoder),
        "morphoclip_version": __version__,
    }
