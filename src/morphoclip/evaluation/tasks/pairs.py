"""Pairs of profiles of two modalities: compounds that mimic or oppose their targets, cosines of matching pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows
from morphoclip.evaluation.tasks.questions import LABEL, Question


def compound_target_pairs(question: Question, rows: pd.DataFrame) -> pd.DataFrame:
    """One row per (compound, target) of a compound_gene question.

    Args:
        question: the question on consensus profiles. rows: its AP rows, averaged over folds; LABEL holds one target.

    Returns:
        subset, the columns of the set's key, Metadata_perturbation, Metadata_pert_iname if known, Metadata_target,
        average_precision, chance, n_reagents of the target, cosine (mean signed cosine with them) and sign: 'mimics'
        or 'opposes'. The task itself ranks by absolute cosine.
    """
    meta = question.meta
    x = unit_rows(checked_features(question.feats))
    compound = (meta[schema.MODALITY] == "compound").to_numpy()
    by = [schema.PERTURBATION]
    if meta.loc[compound, schema.PERTURBATION].duplicated().any():
        by.append(schema.DOSE)
    row_of = dict(zip(meta.loc[compound, by].itertuples(False, None), np.flatnonzero(compound), strict=True))
    reagents: dict[str, list[int]] = {}
    for i in np.flatnonzero(~compound):
        for gene in meta[LABEL].iloc[i]:
            reagents.setdefault(gene, []).append(int(i))
    queries = rows[rows[schema.MODALITY] == "compound"].reset_index(drop=True)
    cosines = [
        float((x[reagents[target]] @ x[row_of[name]]).mean())
        for name, target in zip(queries[by].itertuples(False, None), queries[LABEL], strict=True)
    ]
    table = pd.DataFrame({"subset": question.subset, **question.key}, index=queries.index)
    shown = [c for c in (schema.PERTURBATION, schema.NAME, *by[1:]) if c in queries]
    table[shown] = queries[shown]
    return table.assign(
        Metadata_target=queries[LABEL],
        average_precision=queries["average_precision"],
        chance=queries["chance"],
        n_reagents=[len(reagents[target]) for target in queries[LABEL]],
        cosine=cosines,
        sign=["mimics" if cosine > 0 else "opposes" for cosine in cosines],
    )


def matching_cosines(question: Question) -> tuple[np.ndarray, list[str], float, int]:
    """Signed cosines of the pairs across the two modalities that share a label.

    Returns:
        (cosines (pairs,), the label of each pair, mean cosine of the pairs that share no label, their number).
    """
    x = unit_rows(checked_features(question.feats)).astype(np.float64)
    labels = question.labels()
    first = (question.meta[schema.MODALITY] == question.meta[schema.MODALITY].iloc[0]).to_numpy()
    one, two = np.flatnonzero(first), np.flatnonzero(~first)
    cosines = x[one] @ x[two].T
    shared = [[labels[i] & labels[j] for j in two] for i in one]
    matching = np.array([[bool(common) for common in row] for row in shared])
    names = [min(common) for row in shared for common in row if common]
    return cosines[matching], names, float(cosines[~matching].mean()), int((~matching).sum())
