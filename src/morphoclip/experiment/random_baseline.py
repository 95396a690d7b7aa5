"""Profiles without information on the same wells, as a baseline arm (Kim et al. 2025)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.experiment.score import Arm, preset

KINDS = ("gaussian", "shuffled")


def random_arm(arm: Arm, kind: str, seed: int = 0) -> Arm:
    """An arm on the wells of `arm`, in their order.

    `gaussian`: as many features, drawn from a normal distribution, not normalised; the lowest score a method can have.
    `shuffled`: the profiles of `arm`, permuted among the treated wells of each plate; plate effects and the difference
    between treated wells and controls stay. Wells are drawn in the order of plate and well, so that row order does not
    matter.

    Raises:
        ValueError: another kind.
    """
    metadata, features = schema.split_columns(arm.table)
    rng = np.random.default_rng(seed)
    order = np.lexsort([arm.table[c].astype(str) for c in (schema.WELL, schema.PLATE)])
    if kind == "gaussian":
        values = np.empty((len(order), len(features)))
        values[order] = rng.standard_normal(values.shape)
        normalizer = preset("none")
    elif kind == "shuffled":
        values, normalizer = arm.table[features].to_numpy(copy=True), arm.normalizer
        treated, plate = schema.is_treated(arm.table)[order], arm.table[schema.PLATE].astype(str).to_numpy()[order]
        for name in np.unique(plate):
            rows = order[(plate == name) & treated]
            values[rows] = values[rng.permutation(rows)]
    else:
        raise ValueError(f"baseline={kind!r}: give {' or '.join(KINDS)}, or a table of profiles")
    table = pd.DataFrame(values, columns=features, index=arm.table.index)
    return Arm(pd.concat([arm.table[metadata], table], axis=1), normalizer)
