"""What training has seen: splits by which "unseen" may be meant, and the rule for what may be called clean."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip.evaluation.card.scorecard import ALL, METRIC_COLUMNS, ScoreCard
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.evaluation.tasks.questions import REPLICATE

CLEAN, SEEN, LEAKED = "clean", "seen", "leaked"
# Prompt fields that tell what sister and compound-gene matching ask for.
TELLING_FIELDS = frozenset(
    {"gene", "genes", "target", "targets", "target_list", "moa", "mechanism", "name", "pert_iname", "description"}
)


def mark_leaks(card: ScoreCard, seen: Collection[str], prompt_fields: Sequence[str]) -> ScoreCard:
    """The card with a column `seen` (clean | seen | leaked) in every table, and scores of each kind apart.

    A perturbation seen in training is never clean. Where its training prompt held its gene, target, mechanism, name or
    description it is leaked for every task but replicate. A row is as bad as the worst of its perturbations.

    Args:
        seen: perturbations met in training, by whatever split counts (`seen_perturbations`).
        prompt_fields: fields of the training prompts, e.g. ['smiles', 'targets']; [] for training without text.
    """
    telling = sorted(TELLING_FIELDS & {field.lower() for field in prompt_fields})
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
            f"leak: {leaked} rows rest on perturbations whose training prompts held {telling}; read the clean rows"
        )
    return replace(card, metrics=metrics, tables=tables, alarms=alarms)
