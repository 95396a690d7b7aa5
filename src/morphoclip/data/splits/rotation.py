"""Rotations: each plate and each share of the perturbations is left out of training in turn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.data.splits.draws import share


@dataclass(frozen=True)
class Rotation:
    """One turn: a plate and a share of the perturbations that nobody trains on.

    Attributes:
        plate: the plate left out.
        fold: number of the share left out.
        training: bool (N,), wells of other plates that hold other perturbations; negative controls among them.
        queries: bool (N,), wells of the plate that hold left-out perturbations.
    """

    plate: str
    fold: int
    training: np.ndarray
    queries: np.ndarray


def rotations(wells: pd.DataFrame, units: pd.Series, folds: int, seed: int = 0) -> list[Rotation]:
    """Every plate with every share of its perturbations; each treated well is a query exactly once.

    The share of a perturbation follows from a hash of (seed, its unit), so that forms of one molecule stay together and
    neither the order of rows nor of plates matters.

    Args:
        wells: metadata, one row per well; positive controls are treated.
        units: what must not lie on both sides, one string per row (`split_units`).
        folds: number of shares.

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
