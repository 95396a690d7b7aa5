"""Prepares the data of a run: the simulated screen, the dataset, its features or imported tables, and the split."""

from __future__ import annotations

import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import numpy as np
from omegaconf import DictConfig

from morphoclip.experiment.plain import as_dict
from morphoclip.files import write_atomically
from morphoclip.lock import FolderLock

if TYPE_CHECKING:
    from morphoclip.data import ShardDataset

LOCK = "prepare.lock"
TRAINING_ROWS, VALIDATION_ROWS = "training_rows.npy", "validation_rows.npy"


def prepare_data(data: DictConfig) -> None:
    """Make the parts that do not exist yet; finished parts are reused. Waits while another process makes them.

    Args:
        data: the group `data` of a run's config: `screen` (simulate), `prepare` (cut crops), `features` (by a frozen
            encoder), `table` (import profile tables).
    """
    if "folder" not in data:
        return
    folder = Path(data.folder)
    read_only = folder.is_dir() and not os.access(folder, os.W_OK)  # then all parts must be there
    with nullcontext() if read_only else FolderLock(folder / LOCK).acquire(patience=math.inf):
        if "screen" in data:
            prepare_screen(data)
        if "features" in data and not Path(data.features.folder).is_dir():
            prepare_features(data)
        if "table" in data:
            prepare_table(data)


def prepare_screen(data: DictConfig) -> None:
    """Simulate the screen and cut its crops; without `prepare`, simulate profiles of its wells instead of images."""
    from morphoclip.preparation import prepare_dataset, read_load_data
    from morphoclip.simulation import simulate_profiles, simulate_screen

    simulated = hydra.utils.instantiate(data.screen)
    if "prepare" not in data:
        simulate_profiles(data.root, simulated)
        return
    screen = simulate_screen(Path(data.folder) / "screen", simulated)
    sources = read_load_data(str(screen / "workspace/load_data_csv/*/*/load_data.csv"))
    prepare_dataset(sources, data.root, metadata=screen / "workspace/metadata", **data.prepare)


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


def prepare_table(data: DictConfig) -> None:
    """Import the profile tables; a folder made of the same tables is reused, one made of others is an error."""
    from morphoclip.profiling.import_table import import_tables

    notes: list[str] = []
    table = {key: value for key, value in as_dict(data.table).items() if key not in ("profiles", "folder")}
    import_tables(as_dict(data.table)["profiles"], data.table.folder, notes=notes, **table)
    for note in notes:
        print(f"note: {note}", flush=True)


def dataset_folder(data: DictConfig) -> str:
    """The folder that a run trains on: the first of the loader's datasets, or else the root of the data."""
    datasets = data.loader.get("datasets")
    return str(datasets[0].root if datasets else data.root)


def holdout_of(data: DictConfig) -> dict[str, Any] | None:
    """Arguments of `splits.holdout`; None if the run holds nothing out."""
    return None if data.holdout is None else as_dict(data.holdout)


def choose_splits(data: DictConfig, folder: Path) -> tuple[str | None, str | None]:
    """The splits to train on and to validate on: `data.loader.split` without what is held out, and `data.loader.val_split`.

    With `data.validation` a share of the perturbations that are not held out is validated on and not trained on. The rows
    are written to `folder`, the run's, and the paths of these files are returned: datasets may be read-only, and several
    runs may share one.

    Raises:
        ValueError: both `data.validation` and `data.loader.val_split`, or see `holdout` and `validation`.
    """
    from morphoclip.data import holdout
    from morphoclip.data.loading.features import open_folder
    from morphoclip.data.splits.holdout import TRAIN
    from morphoclip.data.splits.validation import validation

    held_out, validated = holdout_of(data), as_dict(data.validation) if data.get("validation") else {}
    split, val_split = data.loader.split, data.loader.get("val_split")
    if validated and val_split is not None:
        raise ValueError("give either data.validation (a share to draw) or data.loader.val_split (a split that exists)")
    if held_out is None and not validated:
        return split, val_split
    if len(data.loader.get("datasets") or []) > 1:
        raise ValueError(
            "data.holdout and data.validation choose rows of one dataset, and data.loader.datasets has several: write splits "
            "of the same name into each (morphoclip data split), and set data.loader.split"
        )
    dataset = open_folder(dataset_folder(data), split)
    fields = dataset.fields
    training = np.ones(len(fields), bool)
    if held_out is not None:
        training = (holdout(fields, **held_out) == TRAIN).to_numpy()
    if validated:
        chosen = validation(fields, training, **validated)
        training = training & ~chosen
        val_split = write_rows(dataset, chosen, folder / VALIDATION_ROWS)
    return write_rows(dataset, training, folder / TRAINING_ROWS), val_split


def training_split(data: DictConfig, folder: Path) -> str | None:
    """The first of `choose_splits`."""
    return choose_splits(data, folder)[0]


def write_rows(dataset: ShardDataset, fields: np.ndarray, path: Path) -> str:
    """Write the rows of the index whose fields are chosen (bool per field); returns the path."""
    with write_atomically(path) as partial:
        np.save(partial, dataset.rows[fields[dataset.index["field"][dataset.rows]]])
    return str(path)
