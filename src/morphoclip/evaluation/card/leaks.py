"""Leakage from training: which rows of a score card are clean, seen or leaked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card.scorecard import ALL, METRIC_COLUMNS, ScoreCard
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.evaluation.tasks.task import REPLICATE

CLEAN, SEEN, LEAKED = "clean", "seen", "leaked"


def mark_leaks(card: ScoreCard, seen: Collection[str], prompt_fields: Sequence[str]) -> ScoreCard:
    """The card with a column `seen` (clean | seen | leaked) in every table and separate scores of each kind.

    A perturbation seen in training is not clean. If its training prompt contained its gene, target, mechanism, name,
    family, pathway or description (`schema.TELLING`), it is leaked for every task except replicate. A row takes the worst
    state of its perturbations.

    Args:
        seen: perturbations seen in training (`seen_perturbations`).
        prompt_fields: fields of the training prompts, e.g. ['smiles', 'targets']; [] for training without text.
    """
    telling = sorted(schema.TELLING & {field.lower().removeprefix("metadata_") for field in prompt_fields})
    known, tables, rows = set(seen), {}, []
    for name, table in card.tables.items():
        task, ungated = name.removesuffix("_ungated"), name.endswith("_ungated")
        worst = LEAKED if telling and task != REPLICATE else SEEN
        met = [bool(known & set(members.split("|"))) for members in table["members"]]
        kind = np.where(met, worst, CLEAN)
        tables[name] = table.assign(seen=kind)
        metric = "mean_average_precision_ungated" if ungated else "mean_average_precision"
        for status, part in tables[name].groupby("seen", sort=True):
            values = part["mean_average_precision"].to_numpy()
            low, high = cluster_interval(values, part["cluster"])
            chance = float(part["chance"].mean())
            rows.append((task, ALL, f"{metric}_{status}", values.mean(), low, high, len(part), chance, ""))
    metrics = pd.concat([card.metrics, pd.DataFrame(rows, columns=METRIC_COLUMNS)], ignore_index=True)
    alarms = list(card.alarms)
    leaked = sum(int((t["seen"] == LEAKED).sum()) for t in tables.values())
    if leaked:
        alarms.append(
            f"leak: {leaked} rows are of perturbations whose training prompts contained {telling}; use the clean rows"
        )
    return replace(card, metrics=metrics, tables=tables, alarms=alarms)
