"""Mean profiles of treated wells, one per perturbation, gene or molecule; which sets are of genes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.tasks.protocol import PlateSet


def mean_profiles(plate_set: PlateSet, by: str = schema.PERTURBATION) -> PlateSet:
    """The mean over the treated wells of each value of the column `by`, sorted by it; rows without a value are left out.

    The cell count is the mean too; other metadata are those of the first well.
    """
    table = plate_set.table
    table = table[~schema.is_negcon(table) & (table[by].fillna("") != "")]
    grouped = table.groupby(by, sort=True)
    meta = grouped[[c for c in schema.split_columns(table)[0] if c != by]].first()
    if schema.CELL_COUNT in meta:
        meta[schema.CELL_COUNT] = pd.to_numeric(table[schema.CELL_COUNT], errors="coerce").groupby(table[by]).mean()
    means = grouped[plate_set.features].mean()
    return replace(plate_set, table=pd.concat([meta, means], axis=1).reset_index())


def row_centred(features: np.ndarray) -> np.ndarray:
    """Rows minus their mean, float64, so that the cosine of two rows is their correlation."""
    features = np.asarray(features, np.float64)
    return features - features.mean(axis=1, keepdims=True)


def perturbs_genes(plate_set: PlateSet) -> bool:
    """Whether the set's modality is not compound; where no modality is known, whether the wells have genes."""
    table = plate_set.table
    known = set(table[schema.MODALITY].dropna()) - {""} if schema.MODALITY in table else set()
    known |= {plate_set.key[schema.MODALITY]} - {""} if schema.MODALITY in plate_set.key else set()
    if known:
        return "compound" not in known
    return schema.GENE in table and bool((table[schema.GENE].fillna("") != "").any())
