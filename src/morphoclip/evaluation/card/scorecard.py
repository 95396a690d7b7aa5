"""The score card of one method: its numbers, the tables behind them, and alarms."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from morphoclip.files import write_atomically

ALL = "all"
METRIC_COLUMNS = ["task", "subset", "metric", "value", "ci_low", "ci_high", "n", "chance", "p_convention"]


@dataclass
class ScoreCard:
    """The scores of one method.

    Attributes:
        metrics: task, subset ('all' pools the subsets), metric, value, ci_low, ci_high, n, chance, p_convention.
        tables: task -> one row per perturbation, target or gene of each subset; '<task>_ungated' without the filter for
            retrieved perturbations. `compare` uses the columns `row`, `cluster` and `members`.
        queries: task -> one row per query, averaged over folds.
        pairs: one row per (compound, target) with the sign of their cosine, if compound_gene was scored.
        details: task -> the table behind a measure's numbers, e.g. a row per assay.
        alarms: reasons not to trust the scores. notes: what was left out.
        captions: task -> its heading, or what a measure is.
    """

    metrics: pd.DataFrame
    tables: dict[str, pd.DataFrame]
    queries: dict[str, pd.DataFrame]
    alarms: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)

    @property
    def ranking_tasks(self) -> list[str]:
        """The tasks with a row per group, in the order scored."""
        names = dict.fromkeys(name.removesuffix("_ungated") for name in self.tables)
        order = {name: i for i, name in enumerate(self.captions)}
        return sorted(names, key=lambda name: order.get(name, len(order)))

    def shown_table(self, task: str) -> pd.DataFrame:
        """The table that methods are compared on: of all perturbations, not only retrieved ones."""
        return self.tables.get(f"{task}_ungated", self.tables.get(task, pd.DataFrame()))

    def value(self, task: str, metric: str = "mean_average_precision", subset: str = ALL) -> float:
        """One number of `metrics`.

        Raises:
            KeyError: the card has no such number.
        """
        m = self.metrics
        rows = m[(m["task"] == task) & (m["metric"] == metric) & (m["subset"] == subset)]
        if rows.empty:
            raise KeyError(f"no {metric} of {task}, {subset}: the card holds {sorted(set(m['task']))}")
        return float(rows["value"].iloc[0])

    def write(self, folder: str | Path) -> None:
        """Write metrics.csv and one csv per task to `folder`; the same scores give the same bytes."""
        folder = Path(folder)
        pairs = {} if self.pairs.empty else {"compound_gene_pairs": self.pairs}
        for name, table in {"metrics": self.metrics, **self.tables, **self.details, **pairs}.items():
            shown = table.drop(columns=["row", "cluster", "members"], errors="ignore")
            with write_atomically(folder / f"{name}.csv") as partial:
                shown.to_csv(partial, index=False, float_format="%.10g")
