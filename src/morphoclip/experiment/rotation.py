"""Rotation: one training per seed, held-out plate and held-out fold of the compounds, scored together.

Every training embeds all wells; the joined tables of all trainings are the run's out-of-fold profiles. The name of the
training is one of the columns that define a set of plates, so that profiles of two models are never compared.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import DictConfig

from morphoclip.data.splits.rotation import Rotation, rotations
from morphoclip.data.splits.units import split_units
from morphoclip.experiment.arms import UNTRAINED, given_arms, runs_own_code, table_path
from morphoclip.experiment.design import FOLD, rotation_design
from morphoclip.experiment.fit import fit_turn
from morphoclip.experiment.prepare import TRAINING_ROWS, dataset_folder, write_rows

if TYPE_CHECKING:
    from morphoclip.data.loading.features import FeatureDataset


def run_rotation(config: DictConfig, folder: Path) -> None:
    """Train a model for each seed, plate and fold of compounds; write the arms and the design to `folder`.

    Rows, encoder and profiles of a finished training are kept in `folder`/turns and reused. Arms are the trained encoder
    (named after the experiment), its untrained twin, and the given profiles under each preset of `score.baselines`.
    """
    from morphoclip.profiling import write_profiles

    dataset = open_features(config)
    units = split_units(dataset.fields, config.rotation.by)
    turns = turns_of(config, dataset.fields, units)
    print(f"{len(turns)} trainings")
    tables: dict[str, list[pd.DataFrame]] = {UNTRAINED: [], config.name: []}
    for number, (name, (seed, turn)) in enumerate(turns.items(), 1):
        turned = turn_config(config, dataset, folder / "turns" / name, seed, turn)
        for arm, table in profiles_of_turn(turned, dataset, screen=number == 1).items():
            tables[arm].append(table.assign(**{FOLD: name}))
        print(f"training {number} of {len(turns)}: {name}", flush=True)
    for arm, parts in tables.items():
        write_profiles(pd.concat(parts, ignore_index=True), table_path(folder, arm), {"run": folder.name})
    design = rotation_design(dataset.fields, units, {name: turn for name, (_, turn) in turns.items()})
    design.write(folder, arms=list(tables), given=given_arms(config.score), main=config.name)


def open_features(config: DictConfig) -> FeatureDataset:
    """The folder of features of a run.

    Raises:
        FileNotFoundError: the run's dataset holds images.
    """
    from morphoclip.data.loading.features import FeatureDataset

    return FeatureDataset(dataset_folder(config.data))


def turns_of(config: DictConfig, wells: pd.DataFrame, units: pd.Series) -> dict[str, tuple[int, Rotation]]:
    """Name of each training -> (seed, what it trains on)."""
    return {
        f"{turn.plate}-{turn.fold}-seed{seed}": (seed, turn)
        for seed in config.rotation.seeds
        for turn in rotations(wells, units, config.rotation.folds, config.rotation.seed)
    }


def turn_config(config: DictConfig, dataset: FeatureDataset, folder: Path, seed: int, turn: Rotation) -> DictConfig:
    """The config of one training, in `folder`, on the rows of the turn, which are written there."""
    turned = config.copy()
    turned.seed, turned.folder = seed, str(folder)
    turned.data.loader.split = write_rows(dataset, turn.training, folder / TRAINING_ROWS)
    return turned


def first_turn(config: DictConfig) -> tuple[DictConfig, int]:
    """The config of the first training, and the number of trainings."""
    dataset = open_features(config)
    turns = turns_of(config, dataset.fields, split_units(dataset.fields, config.rotation.by))
    name, (seed, turn) = next(iter(turns.items()))
    return turn_config(config, dataset, Path(config.folder) / "turns" / name, seed, turn), len(turns)


def profiles_of_turn(config: DictConfig, dataset: FeatureDataset, *, screen: bool = False) -> dict[str, pd.DataFrame]:
    """Profiles of all wells by the encoder before and after one training, read from disk if they exist.

    The trained encoder is kept in the training's folder. `screen` prints the training's first screen.
    """
    from morphoclip.export import encoder_provenance, export_encoder, load_encoder
    from morphoclip.profiling import read_profiles, write_profiles
    from morphoclip.profiling.feature_embedding import embed_features

    folder = Path(config.folder)
    paths = {arm: table_path(folder, arm) for arm in (UNTRAINED, config.name)}
    if not all(path.is_file() for path in paths.values()):
        untrained, method = fit_turn(config, screen=screen)
        shutil.rmtree(folder / "encoder", ignore_errors=True)  # of a training that was interrupted
        export_encoder(method, folder / "encoder", trained_on=method.trained_on)
        trained = load_encoder(folder / "encoder", trust_remote_code=runs_own_code(config.encoder))
        for path, encoder in zip(paths.values(), (untrained, trained), strict=True):
            write_profiles(embed_features(encoder, dataset), path, encoder_provenance(encoder))
    return {arm: read_profiles(path) for arm, path in paths.items()}
