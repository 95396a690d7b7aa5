"""The report's table of scores: one line per method, one cell per task, and the controls below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from morphoclip.evaluation.card.scorecard import ALL, ScoreCard
from morphoclip.evaluation.tasks.controls import CONTROLS, SHUFFLED
from morphoclip.evaluation.tasks.task import REPLICATE

_ACCENT, _GREY = "#0f6b74", "#8d99a6"


_WIDTH = 170


def score_rows(rows: Mapping[str, ScoreCard], main: str, tasks: Sequence[str]) -> list[dict]:
    found = {name: [_cell(card, task) for task in tasks] for name, card in rows.items()}
    tops = [max([c["high"] for cells in found.values() if (c := cells[i])] or [1]) for i in range(len(tasks))]
    lines: list[dict[str, Any]] = [
        {"name": "chance", "kind": "reference", "cells": [_chance(rows[main], t) for t in tasks]}
    ]
    lines += [{"name": n, "kind": "main" if n == main else "", "cells": cells} for n, cells in found.items()]
    for line in lines:
        for cell, top in zip(line["cells"], tops, strict=True):
            if cell:
                cell["colour"] = _ACCENT if line["kind"] == "main" else "#49586a" if not line["kind"] else _GREY
                scale = {"x": "value", "x_low": "low", "x_high": "high", "x_chance": "chance"}
                for key, source in scale.items():
                    at = cell[source]
                    cell[key] = None if at is None or np.isnan(at) else round(4 + (_WIDTH - 8) * min(at / top, 1), 1)
    return lines


def _metric(card: ScoreCard, task: str, metric: str) -> pd.Series | None:
    m = card.metrics
    found = m[(m["task"] == task) & (m["subset"] == ALL) & (m["metric"] == metric)]
    return None if found.empty else found.iloc[0]


def _cell(card: ScoreCard, task: str) -> dict | None:
    gated = _metric(card, task, "mean_average_precision")
    shown = _metric(card, task, "mean_average_precision_ungated")
    if shown is None:
        shown = gated
    if shown is None:
        return None
    also = f"n = {int(shown['n'])}"
    fraction = _metric(card, task, "fraction_retrieved")
    if task == REPLICATE and fraction is not None:
        also += f" · {fraction['value']:.1%} retrieved"
    elif task != REPLICATE and gated is not None:
        also += f" · retrieved only {gated['value']:.3f}, n = {int(gated['n'])}"
    low, high = float(shown["ci_low"]), float(shown["ci_high"])
    return {
        "value": float(shown["value"]),
        "low": low,
        "high": float(shown["value"]) if np.isnan(high) else high,
        "chance": float(shown["chance"]),
        "interval": "" if np.isnan(low) else f"{low:.3f} – {high:.3f}",
        "also": also,
    }


def _chance(card: ScoreCard, task: str) -> dict | None:
    cell = _cell(card, task)
    if cell is None:
        return None
    nothing = float("nan")
    return {"value": cell["chance"], "low": nothing, "high": nothing, "chance": None, "interval": "", "also": ""}


def control_rows(card: ScoreCard) -> list[dict]:
    rows = card.metrics[card.metrics["metric"].isin({SHUFFLED, *CONTROLS})]
    return [
        {
            "metric": row.metric.replace("_", " "),
            "task": row.task.replace("_", "–") if row.task != REPLICATE else row.task,
            "subset": row.subset,
            "value": float(row.value),
            "interval": "" if np.isnan(row.ci_low) else f"{row.ci_low:.3f} – {row.ci_high:.3f}",
            "chance": "" if np.isnan(row.chance) else f"{row.chance:.3f}",
            "n": int(row.n),
        }
        for row in rows.itertuples()
    ]
