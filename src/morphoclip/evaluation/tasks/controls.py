"""Control scores: shuffled labels, plate layout alone, cell count alone, structure alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.chemistry import fingerprint
from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.similarity import unit_rows
from morphoclip.evaluation.ranking.table import ranked
from morphoclip.evaluation.tasks.protocol import PlateSet
from morphoclip.evaluation.tasks.questions import LABEL, REPLICATE, Question


def shuffled(questions: Sequence[Question], ties: str, shuffles: int, seed: int) -> pd.DataFrame:
    """Mean AP of each group (rows) in each shuffle (columns) of the labels; `questions` are the folds of one question.

    For the replicate task, the perturbations of a plate's treated wells are permuted; for the other tasks, whole label
    sets among the profiles of a modality. Folds differ in negative controls only, so all folds get the same shuffle.
    """
    columns = {i: _one_shuffle(questions, ties, [seed, i]) for i in range(shuffles)}
    return pd.DataFrame(columns)


def same_position_dmso(folds: Sequence[PlateSet], questions: Sequence[Question], ties: str) -> pd.DataFrame | None:
    """AP of DMSO wells whose "replicates" are DMSO wells at the same position of other plates (rows: well x fold).

    Negatives are the other DMSO wells of the plate. An AP above chance is due to plate layout, not biology. Queries are
    limited to the plates of the queries of `questions`, the replicate questions of the same folds. None if no control
    position repeats across plates.
    """
    tables = []
    for fold, question in zip(folds, questions, strict=True):
        negcon = schema.is_negcon(fold.table)
        meta = fold.table.loc[negcon, [schema.PLATE, schema.WELL]]
        if meta[schema.WELL].value_counts().max() < 2 or meta.groupby(schema.PLATE).size().max() < 2:
            return None
        queries = meta[schema.PLATE].isin(question.meta.loc[question.queries, schema.PLATE]).to_numpy()
        table = average_precision(
            meta, fold.values()[negcon], [schema.WELL], [], [schema.PLATE], [schema.WELL], ties=ties, queries=queries
        )
        tables.append(ranked(table))
    return pd.concat(tables, ignore_index=True)


def other_well(folds: Sequence[Question], ties: str) -> pd.DataFrame | None:
    """Replicate AP (rows: query x fold) with positives only at other well positions than the query's.

    It shows the score without help from the position. None if all replicates share their position.
    """
    tables = []
    for question in folds:
        meta = question.meta
        asking = meta[question.queries]
        if asking.groupby(schema.PERTURBATION)[schema.WELL].nunique().max() < 2:
            return None
        rules = question.rules
        table = average_precision(
            meta, question.feats, rules.pos_sameby, [schema.WELL], rules.neg_sameby, rules.neg_diffby,
            ties=ties, queries=question.queries,
        )  # fmt: skip
        tables.append(ranked(table))
    return pd.concat(tables, ignore_index=True)


def cell_count_alone(question: Question, ties: str) -> pd.DataFrame | None:
    """AP of the question with -|difference of cell counts| as the only similarity; None without a count column."""
    if schema.CELL_COUNT not in question.meta:
        return None
    counts = pd.to_numeric(question.meta[schema.CELL_COUNT], errors="coerce").to_numpy(float)
    if not np.isfinite(counts).all():
        return None
    return _alone(
        question, counts[:, None] + 1.0, "absolute_difference", ties
    )  # +1: no row may be zero, and differences are unchanged


def structure_alone(question: Question, ties: str) -> pd.DataFrame | None:
    """AP of the question among compounds with Tanimoto similarity of Morgan fingerprints (radius 3, 2048 bits).

    None if a profile has no structure. A cross-modal model that knows only chemistry has this score.
    """
    if schema.SMILES not in question.meta:
        return None
    bits = [fingerprint(str(smiles)) for smiles in question.meta[schema.SMILES]]
    known = [b for b in bits if b is not None]
    if len(known) < len(bits):
        return None
    return _alone(question, np.stack(known), "tanimoto", ties)


def _alone(question: Question, feats: np.ndarray, distance: str, ties: str) -> pd.DataFrame:
    rules = replace(question.rules, distance=distance)
    return replace(question, feats=feats, rules=rules).average_precision(ties)


def _one_shuffle(questions: Sequence[Question], ties: str, seed: list[int]) -> pd.Series:
    tables = [question.average_precision(ties, _shuffled_meta(question, seed)) for question in questions]
    return pd.concat(tables).groupby(questions[0].rules.sameby[0])["average_precision"].mean()


def _shuffled_meta(question: Question, seed: list[int]) -> pd.DataFrame:
    """Metadata with the labels of treated rows permuted within plate or modality.

    Rows are sorted by their values and plates by their mean profile, so that row order and plate names do not matter.
    """
    replicates = question.task == REPLICATE
    within, label = (schema.PLATE, schema.PERTURBATION) if replicates else (schema.MODALITY, LABEL)
    meta = question.meta.reset_index(drop=True)
    movable = meta[~schema.is_negcon(meta)]
    by = [schema.WELL] if replicates else [schema.PERTURBATION]
    groups = [part.sort_values(by).index.to_numpy() for _, part in movable.groupby(within, sort=True)]
    if replicates:
        groups.sort(key=lambda rows: unit_rows(question.feats[rows]).mean(axis=0).tolist())
    rng = np.random.default_rng(seed)
    labels = meta[label].to_numpy(copy=True)
    for rows in groups:
        labels[rows] = labels[rows][rng.permutation(len(rows))]
    return meta.assign(**{label: pd.Series(list(labels), dtype=object)})
