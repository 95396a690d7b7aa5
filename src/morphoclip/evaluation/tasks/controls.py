"""Control scores: the same question with shuffled labels, other positives, or features that hold no morphology."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.chemistry import fingerprint
from morphoclip.evaluation.ranking.similarity import unit_rows
from morphoclip.evaluation.tasks.questions import LABEL, Question
from morphoclip.evaluation.tasks.task import CONTROLLED, PLACES, WELLS
from morphoclip.progress import counted

SHUFFLED = "shuffled_labels"


def shuffled(questions: Sequence[Question], ties: str, shuffles: int, seed: int) -> pd.DataFrame:
    """Mean AP of each group (rows) in each shuffle (columns) of the labels; `questions` are the folds of one question.

    The perturbations (at their doses) of a plate's treated wells are permuted; of consensus profiles, whole label sets
    among those of a modality. Folds differ in negative controls only, so all folds get the same shuffle.
    """
    each = counted(range(shuffles), unit="shuffle", total=shuffles)
    columns = {i: _one_shuffle(questions, ties, [seed, i]) for i in each}
    return pd.DataFrame(columns)


def same_position_dmso(question: Question) -> Question | None:
    """DMSO wells whose "replicates" are DMSO wells at the same position of other plates, among the other DMSO wells.

    An AP above chance is due to plate layout, not biology. Queries are limited to the plates of the question's queries.
    None if no control position repeats across plates.
    """
    negcon = schema.is_negcon(question.meta)
    meta = question.meta[negcon]
    if not negcon.any() or question.task.negatives not in CONTROLLED:
        return None
    if meta[schema.WELL].value_counts().max() < 2 or meta.groupby(schema.PLATE).size().max() < 2:
        return None
    queries = meta[schema.PLATE].isin(question.meta.loc[question.queries, schema.PLATE]).to_numpy()
    well = (schema.WELL,)
    rules = replace(question.rules, pos_sameby=well, pos_diffby=(), neg_diffby=well, sameby=well, distance="cosine")
    return replace(question, meta=meta, feats=question.feats[negcon], rules=rules, queries=queries)


def replicate_other_well(question: Question) -> Question | None:
    """Positives only at other well positions than the query's: the score without help from the position.

    None if all replicates share their position.
    """
    asking = question.meta[question.queries]
    if asking.groupby(list(question.rules.pos_sameby))[schema.WELL].nunique().max() < 2:
        return None
    different = tuple(dict.fromkeys((*question.rules.pos_diffby, schema.WELL)))
    return replace(question, rules=replace(question.rules, pos_diffby=different))


def cell_count_alone(question: Question) -> Question | None:
    """-|difference of cell counts| as the only similarity; None without a complete count column."""
    if schema.CELL_COUNT not in question.meta:
        return None
    counts = pd.to_numeric(question.meta[schema.CELL_COUNT], errors="coerce").to_numpy(float)
    if not np.isfinite(counts).all():
        return None
    # + 1: no row may be zero, and differences are unchanged
    return _with_features(question, counts[:, None] + 1.0, "absolute_difference")


def structure_alone(question: Question) -> Question | None:
    """Tanimoto similarity of Morgan fingerprints (radius 3, 2048 bits), as of a model that knows only chemistry.

    None if a profile has no structure.
    """
    if schema.SMILES not in question.meta:
        return None
    bits = [fingerprint(str(smiles)) for smiles in question.meta[schema.SMILES]]
    known = [b for b in bits if b is not None]
    return _with_features(question, np.stack(known), "tanimoto") if known and len(known) == len(bits) else None


def random_features(question: Question) -> Question:
    """Gaussian noise as features, the same number of them."""
    noise = np.random.default_rng(len(question.feats)).standard_normal(question.feats.shape)
    return _with_features(question, noise, question.rules.distance)


CONTROLS: dict[str, Callable[[Question], Question | None]] = {
    "same_position_dmso": same_position_dmso,
    "replicate_other_well": replicate_other_well,
    "cell_count_alone": cell_count_alone,
    "structure_alone": structure_alone,
    "random_features": random_features,
}


def _with_features(question: Question, feats: np.ndarray, distance: str) -> Question:
    return replace(question, feats=feats, rules=replace(question.rules, distance=distance))


def _one_shuffle(questions: Sequence[Question], ties: str, seed: list[int]) -> pd.Series:
    tables = [question.average_precision(ties, _shuffled_meta(question, seed)) for question in questions]
    return pd.concat(tables).groupby(list(questions[0].rules.sameby))["average_precision"].mean()


def _shuffled_meta(question: Question, seed: list[int]) -> pd.DataFrame:
    """Metadata with the labels of treated rows permuted within plate (batch, source) or modality.

    Rows are sorted by their values and plates by their mean profile, so that row order and plate names do not matter.
    """
    by_label = question.rules.multilabel_col is not None
    place = schema.PLATE if question.task.profiles == WELLS else PLACES.get(question.task.profiles)
    within = schema.MODALITY if by_label else place
    labels = [LABEL] if by_label else list(question.rules.pos_sameby)
    meta = question.meta.reset_index(drop=True)
    movable = meta[~schema.is_negcon(meta)]
    by = schema.WELL if question.task.profiles == WELLS and not by_label else schema.PERTURBATION
    groups = [part.sort_values(by, kind="stable").index.to_numpy() for _, part in movable.groupby(within, sort=True)]
    if not by_label:
        groups.sort(key=lambda rows: unit_rows(question.feats[rows]).mean(axis=0).tolist())
    rng = np.random.default_rng(seed)
    shuffled = {label: meta[label].to_numpy(copy=True) for label in labels}
    for rows in groups:
        order = rows[rng.permutation(len(rows))]
        for values in shuffled.values():
            values[rows] = values[order]
    return meta.assign(**{label: pd.Series(list(values), dtype=object) for label, values in shuffled.items()})
