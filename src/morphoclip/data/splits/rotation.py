"""Rotations: each plate with each fold of the perturbations is held out of training in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.splits.draws import share


@dataclass(frozen=True)
class Rotation:
    """One rotation: a held-out plate and a held-out fold of the perturbations.

    Attributes:
        plate: the held-out plate.
        fold: number of the held-out fold.
        training: bool (N,), wells of other plates with perturbations of other folds, and their negative controls.
        queries: bool (N,), wells of the held-out plate with held-out perturbations.
    """

    plate: str
    fold: int
    training: np.ndarray
    queries: np.ndarray


def rotations(wells: pd.DataFrame, units: pd.Series, folds: int, seed: int = 0) -> list[Rotation]:
    """All combinations of plate and fold; each treated well is a query exactly once.

    The fold of a perturbation is a hash of (seed, its unit), so that forms of one molecule stay together and the order
    of rows and plates does not matter.

    Args:
        wells: metadata, one row per well; positive controls count as treated.
        units: the unit of each row (`split_units`), which is never on both sides.
        folds: number of folds.

    Raises:
        ValueError: fewer than two plates or folds.
    """
    plates = sorted(wells[schema.PLATE].unique())
    if len(plates) < 2 or folds < 2:
        raise ValueError(
            f"{len(plates)} plates and {folds} folds: an unseen perturbation on an unseen plate needs 2 of each"
        )
    treated = schema.is_treated(wells)
    of_unit = units.map({unit: share(folds, seed, unit) for unit in units.unique()}).to_numpy()
    turns = []
    for plate in plates:
        here = (wells[schema.PLATE] == plate).to_numpy()
        for fold in range(folds):
            left_out = treated & (of_unit == fold)
            turns.append(Rotation(plate, fold, ~here & ~left_out, here & left_out))
    return turns
