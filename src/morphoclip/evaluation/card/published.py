"""Published numbers, next to ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from morphoclip.evaluation.card.scorecard import ScoreCard
from morphoclip.evaluation.tasks.protocol import Protocol

_TASKS = {"replicability": ("replicate",), "matching": ("sister",), "gene_compound": ("compound_gene",)}


def beside_published(card: ScoreCard, path: str | Path | None, protocol: Protocol, complete: set[str]) -> pd.DataFrame:
    """Published numbers for the subsets of this card, next to ours.

    Args:
        path: csv of published numbers, or the name of one of ours (`kim2025`); None: the file of the protocol. Either fractions retrieved in the form of the
            CPJUMP1 paper's tables (source, commit, method, task, modality1, modality2, cell, metric (fr), value; sets are
            named modality_short | modality_long), or any numbers: method, task, metric, value, source, checked (yes, or
            no: we could not compute it on the data it was published for), remark.
        complete: subsets scored with all their plates; others are marked as not comparable.

    Returns:
        For fractions retrieved: task, subset, published, ours, p_convention, commit, comparable ('yes', 'other plates',
        'other convention'). For other numbers: task, subset, metric, method, published, ours, checked, remark, source, a
        row for each of our subsets that has the metric.
    """
    source = Path(__file__).with_name(str(protocol.published)) if path is None else Path(path)
    of_ours = Path(__file__).with_name(f"published_{source.name}.csv")
    source = of_ours if not source.is_file() and of_ours.is_file() else source
    if not source.is_file():
        known = sorted(p.stem.removeprefix("published_") for p in of_ours.parent.glob("published_*.csv"))
        raise FileNotFoundError(
            f"published={path}: there is no such file, and no such table of ours ({', '.join(known)})"
        )
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    if "checked" in table:
        return _any_numbers(card, table)
    m = card.metrics[card.metrics["metric"] == "fraction_retrieved"].set_index(["task", "subset"])
    rows = []
    for row in table[table["metric"] == "fr"].itertuples():
        subset = "-".join(_subset(one, row.cell, protocol) for one in (row.modality1, row.modality2) if one)
        for task in _TASKS.get(row.task, ()):
            if (task, subset) in m.index:
                ours = m.loc[(task, subset)]
                whole = set(subset.split("-")) <= complete
                convention = ours["p_convention"]
                same = "yes" if whole else "other plates"
                rows.append(
                    {
                        "task": task,
                        "subset": subset,
                        "published": float(row.value),
                        "ours": round(float(ours["value"]), 3),
                        "p_convention": convention,
                        "commit": row.commit,
                        "comparable": same if convention == "published" else "other convention",
                    }
                )
    return pd.DataFrame(rows)


def _any_numbers(card: ScoreCard, table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for row in table.itertuples():
        m = card.metrics
        found = m[(m["task"] == row.task) & (m["metric"] == row.metric)]
        for ours in found.itertuples():
            rows.append(
                {
                    "task": row.task,
                    "subset": ours.subset,
                    "metric": row.metric,
                    "method": row.method,
                    "published": float(row.value),
                    "ours": round(float(ours.value), 3),
                    "checked": row.checked,
                    "remark": row.remark,
                    "source": row.source,
                }
            )
    return pd.DataFrame(rows)


def _subset(name: str, cell: str, protocol: Protocol) -> str:
    """'compound_short', 'U2OS' -> 'compound_U2OS_24'."""
    modality, _, length = name.partition("_")
    times = {spoken: hours for hours, spoken in protocol.time_names.get(modality, {}).items()}
    return f"{modality}_{cell}_{times.get(length, length)}"
