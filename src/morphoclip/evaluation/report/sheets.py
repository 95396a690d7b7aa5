"""The report's sortable tables: perturbations, targets, genes, pairs, and scores besides average precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.tasks.task import COMPOUND_GENE, CRISPR_ORF, REPLICATE, SISTER

_ROW_TITLES = {REPLICATE: "Perturbations", SISTER: "Targets", COMPOUND_GENE: "Genes", CRISPR_ORF: "Genes"}


_TABLE_COLUMNS = {
    schema.PERTURBATION: "Perturbation",
    schema.NAME: "Name",
    schema.DOSE: "Dose (µM)",
    schema.MOA: "Mechanism",
    "Metadata_target": "Target",
    schema.GENE: "Gene",
    "subset": "Subset",
    "mean_average_precision": "mAP",
    "chance": "Chance",
    "p_value": "p",
    "corrected_p_value": "q",
    "below_corrected_p": "Retrieved",
    "n_queries": "Queries",
    "mean_average_precision_from_compound": "mAP from compounds",
    "mean_average_precision_from_gene": "mAP from genes",
    "seen": "Seen in training",
}


MOST_PAIRS = 500


def task_sheet(task: str, table: pd.DataFrame) -> dict:
    columns = [c for c in _TABLE_COLUMNS if c in table]
    ordered = table.sort_values("mean_average_precision", ascending=False, kind="stable")
    shown: list[dict[str, Any]] = [{"title": _TABLE_COLUMNS[c], "number": _is_number(table[c])} for c in columns]
    lines = [
        [_text(v, c["number"]) for v, c in zip(row, shown, strict=True)] for row in ordered[columns].to_numpy(object)
    ]
    return {
        "name": task,
        "title": f"{_ROW_TITLES.get(task, 'Rows')} ({task.replace('_', '–')})",
        "columns": shown,
        "lines": lines,
    }


def pair_sheets(pairs: pd.DataFrame) -> list[dict]:
    """The best (compound, target) pairs of retrieved perturbations; compound_gene_pairs.csv holds all of them."""
    if pairs.empty or not pairs["retrieved"].any():
        return []
    shown = pairs[pairs["retrieved"]].sort_values("average_precision", ascending=False, kind="stable").head(MOST_PAIRS)
    titles = {schema.PERTURBATION: "Compound", schema.NAME: "Name", "Metadata_target": "Target", "subset": "Subset"}
    titles |= {"average_precision": "AP", "chance": "Chance", "cosine": "Cosine", "sign": "Sign"}
    table = shown[[c for c in titles if c in shown]].rename(columns=titles)
    return [{**sheet("Compound and target", "", table), "name": "pairs"}]


def batch_step_sheets(steps: pd.DataFrame | None) -> list[tuple[str, str, pd.DataFrame]]:
    caption = (
        "Batch effects before normalisation and after each step. Higher silhouette, graph connectivity and plate mAP, and "
        "lower LISI, mean more batch effect; the last row of a set, with batches shuffled, is the chance level."
    )
    return [] if steps is None or steps.empty else [("Batch effects step by step", caption, steps)]


def sheet(title: str, caption: str, table: pd.DataFrame) -> dict:
    columns: list[dict[str, Any]] = [
        {"title": str(c).replace("_", " "), "number": _is_number(table[c])} for c in table.columns
    ]
    lines = [[_text(v, c["number"]) for v, c in zip(row, columns, strict=True)] for row in table.to_numpy(object)]
    return {"title": title, "caption": caption, "columns": columns, "lines": lines}


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _text(value: Any, number: bool) -> dict:
    if not number:
        text = ("yes" if value else "no") if isinstance(value, bool | np.bool_) else str(value)
        return {"number": False, "value": None, "text": text}
    if pd.isna(value):
        return {"number": True, "value": "-1", "text": "—"}
    whole = float(value).is_integer() and (value > 1 or isinstance(value, int | np.integer))
    text = f"{value:.0f}" if whole else f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
    return {"number": True, "value": f"{value:.6g}", "text": text}
