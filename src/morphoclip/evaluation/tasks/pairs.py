"""Compound and target, one by one: does this compound find this gene's reagents, and does it mimic or oppose them?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows
from morphoclip.evaluation.tasks.questions import LABEL, Question


def compound_target_pairs(question: Question, rows: pd.DataFrame) -> pd.DataFrame:
    """A row a (compound, target) of a compound_gene question.

    Args:
        question: on consensus profiles. rows: its AP rows, averaged over folds; LABEL holds one target.

    Returns:
        subset, the key's columns, Metadata_perturbation, Metadata_pert_iname where known, Metadata_target,
        average_precision, chance, n_reagents of the target, cosine (mean signed cosine with them) and sign: 'mimics'
        or 'opposes'. The task ranks by absolute cosine; only here its sign is kept.
    """
    meta = question.meta
    x = unit_rows(checked_features(question.feats))
    compound = (meta[schema.MODALITY] == "compound").to_numpy()
    place = dict(zip(meta.loc[compound, schema.PERTURBATION], np.flatnonzero(compound), strict=True))
    reagents: dict[str, list[int]] = {}
    for i in np.flatnonzero(~compound):
        for gene in meta[LABEL].iloc[i]:
            reagents.setdefault(gene, []).append(int(i))
    asked = rows[rows[schema.MODALITY] == "compound"].reset_index(drop=True)
    cosines = [
        float((x[reagents[target]] @ x[place[name]]).mean())
        for name, target in zip(asked[schema.PERTURBATION], asked[LABEL], strict=True)
    ]
    table = pd.DataFrame({"subset": question.subset, **question.key}, index=asked.index)
    table[[c for c in (schema.PERTURBATION, schema.NAME) if c in asked]] = asked[
        [c for c in (schema.PERTURBATION, schema.NAME) if c in asked]
    ]
    return table.assign(
        Metadata_target=asked[LABEL],
        average_precision=asked["average_precision"],
        chance=asked["chance"],
        n_reagents=[len(reagents[target]) for target in asked[LABEL]],
        cosine=cosines,
        sign=["mimics" if cosine > 0 else "opposes" for cosine in cosines],
    )
