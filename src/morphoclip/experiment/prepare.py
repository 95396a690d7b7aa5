"""Prepares the data of a run: the simulated screen, the dataset, features or profiles, and the split."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from morphoclip import schema
from morphoclip.experiment.plain import as_dict


def prepare_data(data: DictConfig) -> None:
    """Make the parts that do not exist yet; finished parts are reused.

    Args:
        data: the group `data` of a run's config: `screen` (simulate), `prepare` (cut crops), `features` (by a frozen
            encoder), `profiles` (by classical features), `holdout` (write the split).
    """
    from morphoclip.data import ShardDataset, holdout, write_splits
    from morphoclip.preparation import prepare_dataset, read_load_data
    from morphoclip.simulation import simulate_screen

    if "screen" in data:
        screen = simulate_screen(Path(data.folder) / "screen", hydra.utils.instantiate(data.screen))
        sources = read_load_data(str(screen / "workspace/load_data_csv/*/*/load_data.csv"))
        prepare_dataset(sources, data.root, metadata=screen / "workspace/metadata", **data.prepare)
    if "features" in data and not Path(data.features.folder).is_dir():
        prepare_features(data)
    if "screen" in data and "profiles" in data and not Path(data.profiles).is_file():
        prepare_profiles(data)
    held_out = holdout_of(data)
    if held_out is not None:
        suffix = data.loader.split.removeprefix("train")
        for root in [data.root, data.features.folder] if "features" in data else [data.root]:
            dataset = ShardDataset(root)
            write_splits(dataset, holdout(dataset.fields, **held_out) + suffix)


def prepare_features(data: DictConfig) -> None:
    """Write the features of the dataset's crops by the frozen encoder `data.features`."""
    import torch

    from morphoclip.data import ShardDataset
    from morphoclip.models import create_encoder
    from morphoclip.profiling.features import write_features

    torch.manual_seed(0)
    dataset = ShardDataset(data.root)
    channels = {"in_channels": len(dataset.channels), "channels": list(dataset.channels)}
    encoder = {**channels, **as_dict(data.features.encoder)}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write_features(create_encoder(**encoder), dataset, data.features.folder, device=device)


def prepare_profiles(data: DictConfig) -> None:
    """Write well profiles by classical image features, which replace CellProfiler's."""
    from morphoclip.data import ShardDataset
    from morphoclip.models.classical import ClassicalFeatures
    from morphoclip.profiling import embed, write_profiles

    wells = embed(ClassicalFeatures(), ShardDataset(data.root))
    kept = [schema.PLATE, schema.WELL, *schema.split_columns(wells)[1]]
    write_profiles(wells[kept], data.profiles, {"encoder": "classical"})


def holdout_of(data: DictConfig) -> dict[str, Any] | None:
    """Arguments of `splits.holdout`; None if the run holds nothing out."""
    return None if data.holdout is None else as_dict(data.holdout)


def training_split(data: DictConfig) -> str | None:
    """Name of the training split, from a hash of the holdout, so that runs with different holdouts use different files."""
    if data.holdout is None:
        return data.loader.split
    return f"train-{hashlib.sha256(json.dumps(as_dict(data.holdout)).encode()).hexdigest()[:8]}"
