"""A share of the perturbations to watch a training by: neither trained on nor among those that are scored."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.data.splits.draws import uniform


def validation(fields: pd.DataFrame, among: np.ndarray, *, fraction: float, seed: int = 0) -> np.ndarray:
    """bool per row of `fields`: treated fields of a fraction of the perturbations.

    Forms of one molecule stay together. Perturbations are chosen by a hash of (seed, id), so that a screen that grows keeps
    them. Fields outside of `among` are never chosen.

    Args:
        fields: annotated table, one row per field or well.
        among: bool per row, the fields that are not held out already.
        fraction: of the perturbations, in (0, 1).
        seed: seed of the hash.

    Raises:
        ValueError: a fraction outside (0, 1), or one by which no perturbation is chosen, or all are.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"data.validation.fraction={fraction} must be between 0 and 1")
    treated = schema.is_treated(fields)
    units = chemistry.molecules(fields)
    possible = sorted(set(units[among & treated]) - {""})
    chosen = {unit for unit in possible if uniform(seed, "validation", unit) < fraction}
    if not chosen or len(chosen) == len(possible):
        raise ValueError(
            f"data.validation.fraction={fraction} chooses {len(chosen)} of {len(possible)} perturbations: choose another, "
            "or data.validation=null"
        )
    return among & treated & units.isin(chosen).to_numpy()
