"""Rows of queries ▶ a row per group: pair counts, members and clusters, averages over the folds of a cross-fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.measures.neighbours import nearest_hits
from morphoclip.evaluation.tasks.questions import LABEL, Question
from morphoclip.evaluation.tasks.task import COMPOUND, TARGET


def group_columns(question: Question) -> dict[str, str]:
    """Column that defines the question's groups -> its name in the task's table."""
    label = "Metadata_target" if question.task.label == TARGET else question.task.label
    return {c: (question.task.group or label) if c == LABEL else c for c in question.rules.sameby}


def counts_of(rows: pd.DataFrame, question: Question) -> pd.DataFrame:
    """Chance, pair counts and cluster of each group.

    Groups of the same perturbations (or, if there are compounds among them, the same compounds) are one cluster. If the
    table has split units, clusters are made of these.
    """
    task, by = question.task, list(question.rules.sameby)
    grouped = rows.groupby(by, sort=True)
    counts = grouped[["chance", "n_pos_pairs", "n_total_pairs"]].mean()
    if by != [LABEL] and schema.NAME in rows:
        counts[schema.NAME] = grouped[schema.NAME].first()
    asking = rows
    if task.across and "compound" in task.modalities:
        for place, modalities in (("compound", ["compound"]), ("gene", list(task.across))):
            part = rows[rows[schema.MODALITY].isin(modalities)]
            counts[f"mean_average_precision_from_{place}"] = part.groupby(by)["average_precision"].mean()
            counts[f"n_queries_from_{place}"] = part.groupby(by)[schema.PERTURBATION].nunique()
        asking = rows[rows[schema.MODALITY] == "compound"]
    counts["members"] = members(rows, by)
    unit = schema.UNIT if schema.UNIT in asking else schema.PERTURBATION
    counts["cluster"] = members(asking, by, unit).reindex(counts.index).fillna("")
    return counts.reset_index()


def members(rows: pd.DataFrame, by: list[str], column: str = schema.PERTURBATION) -> pd.Series:
    """The perturbations (or their units) of each group, joined to one string."""
    return rows.groupby(by)[column].agg(lambda names: "|".join(sorted(set(map(str, names)))))


def average_folds(rows: pd.DataFrame, sameby: list[str], label: str = "label") -> pd.DataFrame:
    """One row per query: AP, pair counts and chance averaged over the folds."""
    keep = (schema.PLATE, schema.WELL, schema.MODALITY, schema.PERTURBATION, schema.NAME, schema.DOSE)
    by = list(dict.fromkeys([*sameby, *(c for c in keep if c in rows)]))
    numbers = ["average_precision", "n_pos_pairs", "n_total_pairs", "chance", "tie_share"]
    return rows.groupby(by, sort=True, dropna=False)[numbers].mean().reset_index().rename(columns={LABEL: label})


def nearest_table(questions: Sequence[Question]) -> tuple[pd.DataFrame, int]:
    """(a row per query with a candidate of its label: subset, key, ids, label, hit and chance, averaged over folds, and
    cluster; number of profiles without such a candidate). Profiles of a molecule are one cluster."""
    first = questions[0]
    hits, chances = [], []
    for question in questions:
        apart = [question.meta[column].astype(str) for column in question.rules.pos_diffby]
        hit, chance = nearest_hits(question.feats, question.labels(), *apart, distance=question.rules.distance)
        hits.append(hit)
        chances.append(chance)
    shown = [c for c in (schema.PERTURBATION, schema.NAME, schema.DOSE, schema.PLATE, schema.WELL) if c in first.meta]
    table = first.meta[shown].assign(hit=np.mean(hits, axis=0), chance=np.mean(chances, axis=0))
    if first.rules.multilabel_col is not None:
        table.insert(0, group_columns(first)[LABEL], first.meta[LABEL].map("|".join))
    table = table.assign(cluster=first.meta[COMPOUND if COMPOUND in first.meta else schema.PERTURBATION])
    for column, value in reversed({"subset": first.subset, **first.key}.items()):
        table = table.drop(columns=column, errors="ignore")
        table.insert(0, column, value)
    table = table[first.queries]
    known = table["hit"].notna()
    return table[known].reset_index(drop=True), int((~known).sum())
