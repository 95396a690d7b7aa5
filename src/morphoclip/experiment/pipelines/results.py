"""Recorded lines of a sweep ▶ a row per pipeline and set, the mean over sets, and the Pareto front."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from morphoclip.experiment.pipelines.axes import Axes, label
from morphoclip.experiment.pipelines.scores import CHANCE, SCORES

PIPELINE = ["encoder", "aggregation", "replicates", "order"]
VALUES = [*SCORES, *(f"{name}{CHANCE}" for name in SCORES)]


def by_set(lines: Iterable[dict[str, Any]], axes: Axes) -> pd.DataFrame:
    """A row per pipeline and set: PIPELINE, steps, subset, VALUES, and why it was refused."""
    rows = []
    for line in lines:
        encoder, aggregation, subset = line["set"]
        for level in axes.replicates:
            scores = line["scores"].get(level, {})
            rows.append(
                [encoder, aggregation, level, label(tuple(line["order"])), len(line["order"]), subset]
                + [scores.get(name, np.nan) for name in VALUES]
                + [line["refused"]]
            )
    return pd.DataFrame(rows, columns=[*PIPELINE, "steps", "subset", *VALUES, "refused"])


def over_sets(table: pd.DataFrame) -> pd.DataFrame:
    """A row per pipeline with the means over sets and whether it is on the front, by signal; refused ones last.

    A pipeline that was refused in one set has no means. The front is that of the chosen halves, above chance.
    """
    groups = table.groupby(PIPELINE, sort=False)
    means = groups[VALUES].mean()
    refused = groups["refused"].agg(_reason)
    means.loc[refused != ""] = np.nan
    result = means.assign(steps=groups["steps"].first(), sets=groups.size(), refused=refused).reset_index()
    result.insert(0, "pipeline", _names(result))
    front = pareto_front(above_chance(result, "chosen_signal"), above_chance(result, "chosen_batch_effect"))
    result = result.assign(on_front=front)
    order = np.argsort(-above_chance(result, "chosen_signal"), kind="stable")  # NaN last
    return (
        result[["pipeline", *PIPELINE, "steps", "sets", *VALUES, "on_front", "refused"]]
        .iloc[order]
        .reset_index(drop=True)
    )


def above_chance(table: pd.DataFrame, score: str) -> np.ndarray:
    """(score - chance) / (1 - chance), (N,): 0 at chance, 1 at best, comparable between levels of replicates."""
    chance = table[f"{score}{CHANCE}"].to_numpy()
    return (table[score].to_numpy() - chance) / (1 - chance)


def pareto_front(signal: np.ndarray, batch_effect: np.ndarray) -> np.ndarray:
    """bool (N,): no other point has at least as much signal and at most as much batch effect, one of them strictly."""
    front = np.zeros(len(signal), bool)
    lowest = np.inf
    for i in np.lexsort([batch_effect, -signal]):
        if np.isfinite(signal[i]) and batch_effect[i] < lowest:
            front[i], lowest = True, batch_effect[i]
    return front


def remarks(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What steps warned of and why pipelines were refused, each with the number of pipelines and an example."""
    found: Counter[str] = Counter()
    example: dict[str, str] = {}
    for line in lines:
        texts = [f"refused: {line['refused']}"] if line["refused"] else line["notes"]
        for text in texts:
            found[text] += 1
            example.setdefault(text, label(tuple(line["order"])))
    return [
        f"{count} {'order' if count == 1 else 'orders'}, e.g. {example[text]}: {text}"
        for text, count in found.most_common()
    ]


def _reason(refused: pd.Series) -> str:
    reasons = [text for text in refused if text]
    if not reasons:
        return ""
    return reasons[0] if len(refused) == 1 else f"in {len(reasons)} of {len(refused)} sets, first: {reasons[0]}"


def _names(table: pd.DataFrame) -> list[str]:
    """Name of each pipeline: the aggregation, encoder and replicates if there are several, and the steps."""
    columns = [c for c in ("encoder", "aggregation", "replicates") if c == "aggregation" or table[c].nunique() > 1]
    return [": ".join([", ".join(row[:-1]), row[-1]]) for row in table[[*columns, "order"]].itertuples(index=False)]
