"""The objective of a sweep, read from the tables that a run leaves: its curves, and the scores of its profiles."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REDUCTIONS = ("last", "best", "mean")
CURVES, SCORES = "logs/metrics.csv", "metrics.csv"  # in a run's folder
SHOWN = ("val/knn", "val/loss", "train/loss")  # values of a grid's table, besides the scores


@dataclass(frozen=True)
class Score:
    """A row of the metrics.csv of a scored run.

    Attributes:
        task, metric, subset: columns of the row; without a subset the row of all plates together, "all", or the only one.
    """

    task: str
    metric: str
    subset: str | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.task, self.subset, self.metric)))


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises.

    Attributes:
        what: name of a logged value, or a score.
        maximize: whether larger is better.
        reduce: of a logged value, which: the last, the best, or the mean of the last k.
        k: number of logged values in a mean.
    """

    what: str | Score
    maximize: bool
    reduce: str = "last"
    k: int = 5

    def __str__(self) -> str:
        if isinstance(self.what, Score) or self.reduce == "last":
            return str(self.what)
        return f"{self.what} ({'best' if self.reduce == 'best' else f'mean of the last {self.k}'})"

    @property
    def metric(self) -> str | None:
        """Name of the logged value; None for a score."""
        return None if isinstance(self.what, Score) else self.what

    def value(self, run: Path) -> float:
        """The objective of a finished run.

        Raises:
            LookupError: the run has no such value; the message names those it has.
            ValueError: the value is not finite.
        """
        if isinstance(self.what, Score):
            value = score_of(run, self.what)
        else:
            logged = logged_values(run, self.what)
            if not logged:
                raise LookupError(
                    f"objective.metric={self.what} was never logged in {run / CURVES}; logged are "
                    f"{', '.join(logged_names(run)) or 'none'}"
                )
            value = self.reduced([v for _, v in logged])
        if not math.isfinite(value):
            raise ValueError(f"the objective {self} is {value}")
        return value

    def reduced(self, values: Sequence[float]) -> float:
        """One number of the values by step."""
        if self.reduce == "best":
            return max(values) if self.maximize else min(values)
        last = values[-self.k :] if self.reduce == "mean" else values[-1:]
        return sum(last) / len(last)

    def best(self, values: Mapping[int, float]) -> int | None:
        """The key of the best value; None without values."""
        return (max if self.maximize else min)(values, key=values.__getitem__, default=None)


def logged_values(run: Path, metric: str) -> list[tuple[int, float]]:
    """(optimizer step, value) of a logged metric, in the order of steps."""
    return [(int(row["step"]), float(row[metric])) for row in curves_of(run) if row.get(metric)]


def logged_names(run: Path) -> list[str]:
    """Names of the values in a run's curves."""
    return sorted({name for row in curves_of(run) for name in row if name and "/" in name})


def curves_of(run: Path) -> list[dict[str, str]]:
    """The rows of a run's curves; none if there are no curves yet."""
    from morphoclip.training.curves import read_rows

    return read_rows(run / CURVES) if (run / CURVES).is_file() else []


def scores_of(run: Path) -> list[dict[str, str]]:
    """The rows of a scored run's metrics.csv; none if the run was not scored."""
    path = run / SCORES
    return list(csv.DictReader(path.open(newline=""))) if path.is_file() else []


def score_of(run: Path, score: Score) -> float:
    """A score of a run.

    Raises:
        LookupError: the run has no such row, or several.
    """
    rows = scores_of(run)
    found = [
        row
        for row in rows
        if (row["task"], row["metric"]) == (score.task, score.metric) and score.subset in (None, row["subset"])
    ]
    found = [row for row in found if row["subset"] == "all"] or found
    if len(found) != 1:
        known = sorted({f"{row['task']}, {row['subset']}, {row['metric']}" for row in found or rows})
        what = "no row" if not found else f"{len(found)} rows, give objective.subset,"
        raise LookupError(
            f"{run / SCORES} has {what} for {score}; it has {'; '.join(known[:8]) or 'none: is score=none?'}"
        )
    return float(found[0]["value"])


def shown_values(run: Path) -> dict[str, float]:
    """The values of a run that a grid's table shows: its replicate and other scores, and the last of `SHOWN`."""
    values = {
        f"{row['task']}/{row['metric']}": float(row["value"])
        for row in reversed(scores_of(run))  # of several subsets the first is shown
        if row["metric"] == "mean_average_precision" and row["value"]
    }
    for name in SHOWN:
        if logged := logged_values(run, name):
            values[name] = logged[-1][1]
    return values
