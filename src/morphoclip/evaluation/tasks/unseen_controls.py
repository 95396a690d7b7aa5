"""What stands beside the replicate score of unseen compounds: position alone, and sisters with structure alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.average_precision import average_precision, expected_average_precision, ranked
from morphoclip.evaluation.tasks.controls import structure_alone
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol
from morphoclip.evaluation.tasks.questions import consensus, sister
from morphoclip.evaluation.tasks.unseen import WELL, Rotation, is_treated

POSITION = ", same-position DMSO"  # ends the name of such an arm
STRUCTURE = "structure alone"
COLUMNS = [schema.PLATE, schema.PERTURBATION, "average_precision", "chance"]


def same_position_dmso(tables: Sequence[pd.DataFrame], wells: pd.DataFrame, rotation: Rotation) -> pd.DataFrame:
    """AP of the DMSO wells of the unseen plate, whose "replicates" are DMSO wells at the same position of other plates.

    Negatives are the other DMSO wells of the plate: what it exceeds chance by is layout. A row a position, in the columns
    of `unseen_replicates`; arguments as there. Empty where no position repeats.
    """
    parts = []
    for table in tables:
        metadata, features = schema.split_columns(table)
        control = (table[schema.CONTROL_TYPE] == schema.NEGCON).to_numpy()
        meta = table.loc[control, metadata].reset_index(drop=True)
        asked = (meta[schema.PLATE] == rotation.plate).to_numpy()
        rules = [schema.WELL], [], [schema.PLATE], [schema.WELL]
        feats = table.loc[control, features].to_numpy(np.float64)
        parts.append(_scored(average_precision(meta, feats, *rules, queries=asked)))
    rows = pd.concat(parts)
    rows[schema.PERTURBATION] = "DMSO at " + rows[schema.WELL]
    return rows.groupby([*WELL, schema.PERTURBATION], as_index=False)[COLUMNS[2:]].mean()


def unseen_sisters(
    tables: Sequence[pd.DataFrame], wells: pd.DataFrame, rotation: Rotation, arm: str, protocol: Protocol | None = None
) -> pd.DataFrame:
    """Do left-out compounds find compounds of their target among all compounds of the unseen plate? Exploratory.

    A profile is the median over a compound's wells on that plate; absolute cosine; negatives share no target. Those that
    are found may have been trained on.

    Returns:
        Rows plate, perturbation, average_precision (mean over its targets), chance, arm: `arm` and `STRUCTURE`, the same
        question by Tanimoto similarity. Empty where no two compounds share an annotated target.
    """
    left_out = set(wells.loc[rotation.queries, schema.PERTURBATION])
    parts = []
    for table in tables:
        here = table[(table[schema.PLATE] == rotation.plate).to_numpy() & is_treated(table)]
        features = schema.split_columns(here)[1]
        plate = PlateSet(rotation.plate, {schema.MODALITY: "compound"}, here, features)
        question = sister(consensus(plate, np.ones(len(here), bool), None), protocol or Protocol())
        if question is None:
            continue
        question = replace(question, queries=question.meta[schema.PERTURBATION].isin(left_out).to_numpy())
        parts.append(_scored(question.average_precision()).assign(arm=arm))
        alone = structure_alone(question, "expected")
        if alone is not None:
            parts.append(_scored(alone).assign(arm=STRUCTURE))
    if not parts:
        return pd.DataFrame(columns=[*COLUMNS, "arm"])
    rows = pd.concat(parts).assign(**{schema.PLATE: rotation.plate})
    return rows.groupby(["arm", *COLUMNS[:2]], as_index=False, sort=True)[COLUMNS[2:]].mean()


def _scored(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that had something to rank, and the AP that chance gives them."""
    table = ranked(table)
    return table.assign(chance=expected_average_precision(table["n_pos_pairs"], table["n_total_pairs"]))
