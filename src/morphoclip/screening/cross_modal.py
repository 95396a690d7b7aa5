"""Ranking in the joint space of a cross-modal model: wells for a text or structure, and candidates for a well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip import schema

COSINE, RANK = "Metadata_cosine", "Metadata_rank"
LEVELS = ("well", "perturbation")


def rank_profiles(table: pd.DataFrame, query: np.ndarray, level: str = "perturbation") -> pd.DataFrame:
    """The rows of a profile table ranked by their cosine to a query.

    Args:
        table: profiles in the joint space by the model's own encoder, not normalised.
        query: (D,), the joint embedding of a prompt or molecule.
        level: `well` ranks the rows; `perturbation` ranks the mean of each condition's unit profiles.

    Returns:
        Metadata common to the rows of a group, `Metadata_cosine`, `Metadata_rank` (from 1; ties get their mean rank), and
        for `perturbation` the number of wells, `Metadata_wells`.

    Raises:
        ValueError: unknown level, or profiles and query differ in size.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: use well or perturbation")
    metadata, features = schema.split_columns(table)
    if len(features) != len(query):
        raise ValueError(
            f"the profiles have {len(features)} features, but the joint space has {len(query)}: embed the images with this "
            "run's encoder, exported with method.image.export=joint"
        )
    unit = _unit(table[features].to_numpy(np.float64))
    if level == "well":
        ranked = table[metadata].copy()
    else:
        by = [column for column in schema.CONDITION if column in table]
        groups = table[metadata].fillna("").groupby(by, sort=True)
        code = groups.ngroup().to_numpy()
        unit = _unit(np.stack([unit[code == group].mean(0) for group in range(code.max() + 1)]))
        ranked = groups.first().where(groups.nunique() <= 1, "").reset_index()
        ranked = ranked.drop(columns=[c for c in (schema.WELL, schema.SITE) if c in ranked])
        ranked["Metadata_wells"] = groups.size().to_numpy()
    ranked[COSINE] = unit @ _unit(np.asarray(query, np.float64)[None])[0]
    ranked[RANK] = ranked[COSINE].rank(ascending=False)
    return ranked.sort_values(COSINE, ascending=False, kind="stable", ignore_index=True)


def profile_of(table: pd.DataFrame, plate: str, well: str) -> np.ndarray:
    """The profile (D,) of a well.

    Raises:
        KeyError: the table has no such well.
    """
    chosen = table[(table[schema.PLATE] == plate) & (table[schema.WELL] == well)]
    if chosen.empty:
        raise KeyError(f"the profile table has no well {well} on plate {plate}: check both names")
    return chosen[schema.split_columns(table)[1]].to_numpy(np.float64).mean(0)


def rank_candidates(profile: np.ndarray, candidates: np.ndarray, names: Sequence[object]) -> pd.DataFrame:
    """Candidates (prompts, molecules) ranked by their cosine to a profile: columns candidate, cosine, rank."""
    cosine = _unit(np.asarray(candidates, np.float64)) @ _unit(np.asarray(profile, np.float64)[None])[0]
    ranked = pd.DataFrame({"candidate": list(names), "cosine": cosine})
    ranked["rank"] = ranked["cosine"].rank(ascending=False)
    return ranked.sort_values("cosine", ascending=False, kind="stable", ignore_index=True)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
