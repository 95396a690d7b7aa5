"""Scores of single (compound, target) pairs: average precision, and whether the compound mimics or opposes the gene."""

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
    row_of = dict(zip(meta.loc[compound, schema.PERTURBATION], np.flatnonzero(compound), strict=True))
    reagents: dict[str, list[int]] = {}
    for i in np.flatnonzero(~compound):
        for gene in meta[LABEL].iloc[i]:
            reagents.setdefault(gene, []).append(int(i))
    queries = rows[rows[schema.MODALITY] == "compound"].reset_index(drop=True)
    cosines = [
        float((x[reagents[target]] @ x[row_of[name]]).mean())
        for name, target in zip(queries[schema.PERTURBATION], queries[LABEL], strict=True)
    ]
    table = pd.DataFrame({"subset": question.subset, **question.key}, index=queries.index)
    table[[c for c in (schema.PERTURBATION, schema.NAME) if c in queries]] = queries[
        [c for c in (schema.PERTURBATION, schema.NAME) if c in queries]
    ]
    return table.assign(
        Metadata_target=queries[LABEL],
        average_precision=queries["average_precision"],
        chance=queries["chance"],
        n_reagents=[len(reagents[target]) for target in queries[LABEL]],
        cosine=cosines,
        sign=["mimics" if cosine > 0 else "opposes" for cosine in cosines],
    )
