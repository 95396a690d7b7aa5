"""Profile tables that an encoder was not trained on: put through it, beside the given features, and the seen kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig

from morphoclip import schema
from morphoclip.export import load_encoder
from morphoclip.export.provenance import facts_of_training
from morphoclip.models import FeatureEncoder
from morphoclip.profiling.feature_embedding import embed_table

GIVEN, CENTRED = "given features", "given features, centred"
ENCODERS = ("encoder", "checkpoint")
IDENTITY = (schema.SMILES, schema.INCHIKEY, schema.NAME)


def takes_profiles(config: DictConfig) -> bool:
    """Whether an evaluation puts its profiles through an encoder: both are given."""
    return config.profiles is not None and sum(config[key] is not None for key in ENCODERS) == 1


def through_encoder(table: pd.DataFrame, config: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """({arm: (table, normaliser)}, notes): the given features as they are and centred, and last the encoder's profiles.

    Args:
        table: annotated profiles, a row a well.

    Raises:
        ValueError: an encoder of images, one that records no names of features, or a table that lacks too many of them.
    """
    from morphoclip.experiment.score import preset

    notes: list[str] = []
    profiles = embed_table(_encoder(config), table, notes=notes)
    chosen = instantiate(config.normalize) if config.get("normalize") is not None else preset("center")
    arms = {GIVEN: (table, preset("none")), CENTRED: (table, preset("center"))}
    return {**arms, "encoder": (profiles, chosen)}, [f"encoder: {note}" for note in notes]


def perturbations_of_training(config: DictConfig) -> tuple[pd.DataFrame | None, list[str]]:
    """(perturbations that the encoder records to have been trained on, fields of its prompts); None if it records none."""
    known = facts_of_training(_encoder(config))
    seen = known.get("perturbations")
    return None if seen is None else pd.DataFrame(seen), list(known.get("prompts_contain", []))


def seen_unit(table: pd.DataFrame, asked: str) -> str:
    """The unit by which perturbations count as seen: `asked`, or their ids if the table knows no structures or names.

    Raises:
        ValueError: a unit that an encoder does not record.
    """
    if asked in ("plate", "batch", "source"):
        raise ValueError(
            f"seen_by={asked}: the encoder records the perturbations of its training, not their wells: give the table of "
            "these wells, training=TABLE"
        )
    known = any(column in table and (table[column] != "").any() for column in IDENTITY)
    return asked if asked != "structure" or known else "perturbation"


def _encoder(config: DictConfig) -> FeatureEncoder:
    source: Sequence[Any] = [config[key] for key in ENCODERS if config[key] is not None]
    model: Any = load_encoder(source[0], trust_remote_code=config.trust_remote_code)
    return model
