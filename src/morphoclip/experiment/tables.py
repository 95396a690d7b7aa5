"""Sources of the profiles of arms: tables on disk, an encoder with a dataset, or a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.data.metadata.annotations import with_canonical_ids
from morphoclip.evaluation import Protocol
from morphoclip.experiment.arms import table_path
from morphoclip.experiment.other_tables import takes_profiles, through_encoder
from morphoclip.experiment.plain import as_dict, load_config
from morphoclip.experiment.prepare import dataset_folder
from morphoclip.experiment.score import Arm, preset
from morphoclip.profiling import Normalizer, aggregate, embed, load_encoder, read_profiles
from morphoclip.profiling.import_table import table_of
from morphoclip.profiling.normalize import EMBEDDING_PREFIX
from morphoclip.profiling.reading.columns import canonical_mapping
from morphoclip.profiling.reading.controls import named_controls, with_controls
from morphoclip.profiling.reading.features import UndecidedFeatures
from morphoclip.profiling.reading.joins import join_metadata
from morphoclip.profiling.reading.tables import paths_of
from morphoclip.profiling.reading.tables import read_tables as reading_of_files

SOURCES = ("profiles", "encoder", "checkpoint")


def arms_of_run(folder: Path, config: DictConfig, about: Mapping[str, Any]) -> dict[str, Arm]:
    """The arms in a run folder, each with the run's normalisation, and given profiles with their presets.

    Args:
        about: the sidecar of the run's design: `arms` (names of tables in the folder), `given` (name -> preset).
    """
    given = {}
    if about["given"]:
        wells = table_of(FeatureDataset(dataset_folder(config.data)))
        given = {name: Arm(wells, preset(choice)) for name, choice in about["given"].items()}
    tables = {name: read_profiles(table_path(folder, name), notes=[]) for name in about["arms"]}
    return {**given, **{name: Arm(table, instantiate(config.normalize)) for name, table in tables.items()}}


def read_arm(config: DictConfig, protocol: Protocol) -> Arm:
    """The profiles named by an evaluation's config, read from disk or embedded now, and annotated.

    Raises:
        ValueError: not exactly one of `SOURCES` is given (or profiles with an encoder), or an encoder without `dataset`.
    """
    sources = ["profiles"] if takes_profiles(config) else [key for key in SOURCES if config[key] is not None]
    if len(sources) != 1:
        raise ValueError(
            f"give exactly one of profiles=, encoder= and checkpoint=, or profiles= with one of the two; got {sources or 'none'}"
        )
    if sources == ["profiles"]:
        reading = reading_of_files(
            paths_of(_plain(config, "profiles")),
            columns=column_names(config),
            known_columns=of_protocol(protocol),
            control=_plain(config, "control"),
            features=_plain(config, "features"),
            metadata=_plain(config, "metadata"),
        )
        return _arm(reading.table, config, protocol, reading.notes)
    if config.dataset is None:
        raise ValueError(f"{sources[0]}= needs dataset=<dataset folder or load_data.csv> to embed")
    table = embedded(config[sources[0]], config.dataset, config.trust_remote_code)
    return as_arm(table, config, protocol)


def read_arms(config: DictConfig, protocol: Protocol) -> tuple[Arm, dict[str, Arm]]:
    """(the arm that an evaluation's config names, arms beside it): profiles put through an encoder have the given ones beside them."""
    arm = read_arm(config, protocol)
    if not takes_profiles(config):
        return arm, {}
    made, notes = through_encoder(arm.table, config)
    *others, (_, (profiles, normalizer)) = made.items()
    return Arm(profiles, normalizer, [*arm.notes, *notes]), {name: Arm(*parts) for name, parts in others}


def read_baseline(config: DictConfig, protocol: Protocol) -> Arm:
    """The profiles of `config.baseline`, by the same keys where it has such columns; its features are its own."""
    options = {"control": _plain(config, "control"), "metadata": _plain(config, "metadata")}
    known = {**of_protocol(protocol), **column_names(config)}
    paths = paths_of(_plain(config, "baseline"))
    try:
        reading = reading_of_files(paths, known_columns=known, **options)
    except UndecidedFeatures:  # `features` was given for a table that mixes them too
        reading = reading_of_files(paths, known_columns=known, features=_plain(config, "features"), **options)
    return _arm(reading.table, config, protocol, reading.notes)


def read_training(config: DictConfig, protocol: Protocol) -> pd.DataFrame:
    """The table of training wells, `config.training`: names and annotations as for the profiles; features are not read."""
    known = {**of_protocol(protocol), **column_names(config)}
    paths, metadata = paths_of(_plain(config, "training")), _plain(config, "metadata")
    return reading_of_files(paths, known_columns=known, metadata=metadata, features_needed=False).table


def as_arm(table: pd.DataFrame, config: DictConfig, protocol: Protocol) -> Arm:
    """A table in canonical names as an arm: annotated, with the chosen normalisation, or else the protocol's, or that for its features."""
    notes: list[str] = []
    return _arm(annotated(table, config, protocol, notes), config, protocol, notes)


def _arm(table: pd.DataFrame, config: DictConfig, protocol: Protocol, notes: list[str]) -> Arm:
    if config.aggregate is not None:
        table = aggregate(table, [c for c in schema.WELL_KEY if c in table], config.aggregate)
    if config.get("normalize") is not None:  # the key is absent if no preset was chosen
        return Arm(table, instantiate(config.normalize), notes)
    return Arm(table, preset(protocol.normalize) if protocol.normalize else default_normalizer(table), notes)


def default_normalizer(table: pd.DataFrame) -> Normalizer:
    """`center` for the profiles of an encoder; `none` for others, which are already normalised."""
    of_encoder = all(feature.startswith(EMBEDDING_PREFIX) for feature in schema.split_columns(table)[1])
    return preset("center" if of_encoder else "none")


def embedded(encoder: str, dataset: str, trust_remote_code: bool = False) -> pd.DataFrame:
    """Well profiles of a dataset folder, scaled as in the encoder's training, or of a load_data.csv."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_encoder(encoder, device=device, trust_remote_code=trust_remote_code)
    return embed(model, dataset, level="well", device=device)


def annotated(table: pd.DataFrame, config: DictConfig, protocol: Protocol, notes: list[str]) -> pd.DataFrame:
    """A table in canonical names with the annotations of `config.metadata` and controls by `config.control`."""
    columns = {**of_protocol(protocol), **column_names(config)}
    names = {theirs: ours for ours, theirs in columns.items()}
    table = with_canonical_ids(table.rename(columns=names))
    metadata = _plain(config, "metadata")
    table = table if metadata is None else join_metadata(table, metadata, columns=columns, notes=notes)
    return named_controls(with_controls(table, _plain(config, "control"), notes, names))


def of_protocol(protocol: Protocol) -> dict[str, str]:
    """{our column: a table's} of the columns that a protocol names."""
    return {ours: theirs for theirs, ours in protocol.columns.items()}


def column_names(config: DictConfig) -> dict[str, str]:
    """{our column: the table's} of `config.columns`: a mapping, or a YAML or JSON file of one.

    Raises:
        ValueError: `columns` is neither a mapping nor a file, or one of our names does not exist.
    """
    chosen = _plain(config, "columns") or {}
    if isinstance(chosen, str):
        if not Path(chosen).is_file():
            raise ValueError(
                f"columns={chosen}: give a file with lines `perturbation: Compound`, or columns.perturbation=…"
            )
        chosen = as_dict(load_config(Path(chosen)))
    return canonical_mapping(chosen)


def _plain(config: DictConfig, key: str) -> Any:
    value = config.get(key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
