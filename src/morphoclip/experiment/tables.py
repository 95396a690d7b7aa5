"""Sources of the profiles of arms: tables on disk, an encoder with a dataset, or a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig

from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.data.metadata.annotations import annotate, with_canonical_ids
from morphoclip.evaluation import Protocol
from morphoclip.evaluation.tasks.tables import join_profiles, profile_paths
from morphoclip.experiment.arms import table_path
from morphoclip.experiment.other_tables import takes_profiles
from morphoclip.experiment.prepare import dataset_folder
from morphoclip.experiment.score import Arm, preset
from morphoclip.profiling import Normalizer, aggregate, embed, load_encoder, read_profiles
from morphoclip.profiling.import_table import table_of
from morphoclip.profiling.normalize import EMBEDDING_PREFIX

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
    tables = {name: read_profiles(table_path(folder, name)) for name in about["arms"]}
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
        table = read_tables(config.profiles)
    else:
        if config.dataset is None:
            raise ValueError(f"{sources[0]}= needs dataset=<dataset folder or load_data.csv> to embed")
        table = embedded(config[sources[0]], config.dataset, config.trust_remote_code)
    if config.aggregate is not None:
        by = [c for c in schema.WELL_KEY if c in table]
        table = aggregate(table, by, config.aggregate)
    return as_arm(table, config, protocol)


def as_arm(table: pd.DataFrame, config: DictConfig, protocol: Protocol) -> Arm:
    """A table as an arm: annotated, with the chosen normalisation or else the default for its features."""
    table = annotated(table, config.metadata, protocol)
    if config.get("normalize") is not None:  # the key is absent if no preset was chosen
        return Arm(table, instantiate(config.normalize))
    return Arm(table, default_normalizer(table))


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


def read_tables(patterns: str | Sequence[str]) -> pd.DataFrame:
    """All tables that match paths or globs, joined; a feature that a file lacks is NaN in its rows."""
    patterns = patterns if isinstance(patterns, str) else list(patterns)
    return join_profiles({str(path): read_profiles(path) for path in profile_paths(patterns)})


def annotated(table: pd.DataFrame, metadata: str | None, protocol: Protocol) -> pd.DataFrame:
    """The table with canonical columns and the annotations of a metadata folder."""
    table = with_canonical_ids(table.rename(columns=dict(protocol.columns)))
    return table if metadata is None else annotate(table, metadata)
