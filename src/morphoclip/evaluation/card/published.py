"""Published fractions retrieved, next to ours."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from morphoclip.evaluation.card.scorecard import ScoreCard
from morphoclip.evaluation.tasks.protocol import Protocol

_TASKS = {"replicability": ("replicate",), "matching": ("sister",), "gene_compound": ("compound_gene",)}


def beside_published(card: ScoreCard, path: str | Path | None, protocol: Protocol, complete: set[str]) -> pd.DataFrame:
    """Published numbers for the subsets of this card, next to ours.

    Args:
        path: csv with source, commit, method, task, modality1, modality2, cell, metric (fr), value; sets are named
            modality_short | modality_long. None: the file of the protocol.
        complete: subsets scored with all their plates; others are marked as not comparable.

    Returns:
        task, subset, published, ours, p_convention, commit, comparable ('yes', 'other plates', 'other convention').
    """
    source = Path(__file__).with_name(str(protocol.published)) if path is None else Path(path)
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
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


def _subset(name: str, cell: str, protocol: Protocol) -> str:
    """'compound_short', 'U2OS' -> 'compound_U2OS_24'."""
    modality, _, length = name.partition("_")
    times = {spoken: hours for hours, spoken in protocol.time_names.get(modality, {}).items()}
    return f"{modality}_{cell}_{times.get(length, length)}"
