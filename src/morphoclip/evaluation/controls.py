"""Scores that tell what a score is worth: shuffled labels, and DMSO wells at one position posing as replicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.data import schema
from morphoclip.evaluation.average_precision import average_precision
from morphoclip.evaluation.protocol import PlateSet
from morphoclip.evaluation.tasks import LABEL, REPLICATE, Question


def shuffled(questions: Sequence[Question], ties: str, shuffles: int, seed: int) -> pd.DataFrame:
    """Mean AP of each group (rows) in each shuffle (columns) of the labels; `questions` are the folds of one.

    Replicate: perturbations of the treated wells of a plate change places. Other tasks: whole label sets change places
    among the profiles of a modality. A fold keeps the rows of the others but for negative controls, so all folds see
    one shuffle.
    """
    columns = {i: _one_shuffle(questions, ties, [seed, i]) for i in range(shuffles)}
    return pd.DataFrame(columns)


def same_position_dmso(folds: Sequence[PlateSet], ties: str) -> pd.DataFrame | None:
    """AP of DMSO wells whose "replicates" are DMSO wells at the same position of other plates (rows: well x fold).

    Negatives are the other DMSO wells of the plate. What it exceeds chance by is layout, not biology. None where no
    control position repeats across plates.
    """
    tables = []
    for fold in folds:
        negcon = (fold.table[schema.CONTROL_TYPE] == schema.NEGCON).to_numpy()
        meta = fold.table.loc[negcon, [schema.PLATE, schema.WELL]]
        if meta[schema.WELL].value_counts().max() < 2 or meta.groupby(schema.PLATE).size().max() < 2:
            return None
        table = average_precision(
            meta, fold.values()[negcon], [schema.WELL], [], [schema.PLATE], [schema.WELL], ties=ties
        )
        tables.append(table[table["average_precision"].notna()])
    return pd.concat(tables, ignore_index=True)


def _one_shuffle(questions: Sequence[Question], ties: str, seed: list[int]) -> pd.Series:
    by = (schema.PLATE, schema.PERTURBATION) if questions[0].task == REPLICATE else (schema.MODALITY, LABEL)
    tables = []
    for question in questions:
        rng = np.random.default_rng(seed)
        meta = question.meta.copy()
        labels = meta[by[1]].to_numpy(copy=True)
        movable = np.flatnonzero(meta[schema.CONTROL_TYPE] != schema.NEGCON)
        for _, places in meta.iloc[movable].groupby(by[0], sort=True).indices.items():
            rows = movable[places]
            labels[rows] = labels[rows][rng.permutation(len(rows))]
        meta[by[1]] = pd.Series(list(labels), index=meta.index, dtype=object)
        tables.append(question.average_precision(ties, meta))
    return pd.concat(tables).groupby(questions[0].rules.sameby[0])["average_precision"].mean()
