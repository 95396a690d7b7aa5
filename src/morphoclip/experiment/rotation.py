"""Rotation: one training per seed, held-out plate and held-out fold of the compounds, scored together.

Every training embeds all wells; the joined tables of all trainings are the run's out-of-fold profiles. The name of the
training is one of the columns that define a set of plates, so that profiles of two models are never compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from omegaconf import DictConfig

from morphoclip.data.splits.rotation import Rotation, rotations
from morphoclip.data.splits.units import split_units
from morphoclip.experiment.arms import UNTRAINED, table_path
from morphoclip.experiment.design import FOLD, rotation_design
from morphoclip.experiment.fit import fit_turn
from morphoclip.experiment.plain import as_dict

if TYPE_CHECKING:
    from morphoclip.data.loading.features import TableDataModule


def run_rotation(config: DictConfig, folder: Path) -> None:
    """Train a model for each seed, plate and fold of compounds; write the arms and the design to `folder`.

    Profiles of a finished training are kept in `folder`/turns and reused. Arms are the trained encoder (named after the
    experiment), its untrained twin, and the given profiles under each preset of `rotation.baselines`.
    """
    from morphoclip.profiling import write_profiles

    wells = read_wells(config.data)
    units = split_units(wells, config.rotation.by)
    turns = turns_of(config, wells, units)
    print(f"{len(turns)} trainings")
    tables: dict[str, list[pd.DataFrame]] = {UNTRAINED: [], config.name: []}
    for number, (name, (seed, turn)) in enumerate(turns.items(), 1):
        at = folder / "turns" / name
        for arm, table in profiles_of_turn(config, at, wells, seed, turn, screen=number == 1).items():
            tables[arm].append(table.assign(**{FOLD: name}))
        print(f"training {number} of {len(turns)}: {name}", flush=True)
    for arm, parts in tables.items():
        write_profiles(pd.concat(parts, ignore_index=True), table_path(folder, arm), {"run": folder.name})
    given = {f"{config.rotation.given}, {preset}": preset for preset in config.rotation.baselines}
    design = rotation_design(wells, units, {name: turn for name, (_, turn) in turns.items()})
    design.write(folder, arms=list(tables), given=given, main=config.name)


def turns_of(config: DictConfig, wells: pd.DataFrame, units: pd.Series) -> dict[str, tuple[int, Rotation]]:
    """Name of each training -> (seed, what it trains on)."""
    return {
        f"{turn.plate}-{turn.fold}-seed{seed}": (seed, turn)
        for seed in config.rotation.seeds
        for turn in rotations(wells, units, config.rotation.folds, config.rotation.seed)
    }


def first_turn(config: DictConfig) -> tuple[TableDataModule, int]:
    """The batches of the first training, and the number of trainings."""
    wells = read_wells(config.data)
    turns = turns_of(config, wells, split_units(wells, config.rotation.by))
    return loader_of(config, wells, next(iter(turns.values()))[1]), len(turns)


def loader_of(config: DictConfig, wells: pd.DataFrame, turn: Rotation) -> TableDataModule:
    """The batches of one training."""
    from morphoclip.data.loading.features import TableDataModule

    given = as_dict(config.data.loader)
    return TableDataModule(wells[turn.training], **{k: v for k, v in given.items() if not k.startswith("_")})


def read_wells(data: DictConfig) -> pd.DataFrame:
    """The profile tables of `data.profiles` with the annotations of `data.metadata`."""
    from morphoclip.data.metadata import annotate
    from morphoclip.profiling import read_profiles

    return annotate(read_profiles(data.profiles), data.metadata)


def profiles_of_turn(
    config: DictConfig, folder: Path, wells: pd.DataFrame, seed: int, turn: Rotation, *, screen: bool = False
) -> dict[str, pd.DataFrame]:
    """Profiles of all wells by the encoder before and after one training; read from disk if they exist. `screen` prints its first screen."""
    from morphoclip.data.loading.features import TableDataset
    from morphoclip.export import encoder_provenance
    from morphoclip.profiling import read_profiles, write_profiles
    from morphoclip.profiling.features import embed_features

    paths = {arm: table_path(folder, arm) for arm in (UNTRAINED, config.name)}
    if not all(path.is_file() for path in paths.values()):
        turned = config.copy()
        turned.seed, turned.folder = seed, str(folder)
        loader = loader_of(turned, wells, turn)
        dataset = TableDataset(wells, loader.names)
        for path, encoder in zip(paths.values(), fit_turn(turned, loader, screen=screen), strict=True):
            write_profiles(embed_features(encoder, dataset), path, encoder_provenance(encoder))
    return {arm: read_profiles(path) for arm, path in paths.items()}
