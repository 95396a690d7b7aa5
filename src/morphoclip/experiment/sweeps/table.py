"""The table of a sweep: a row a run, with its settings, state and values; written as sweep.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphoclip.files import write_atomically

PENDING = "pending"


@dataclass(frozen=True)
class Row:
    """A run of a sweep.

    Attributes:
        name: of its folder. state: finished, pruned, failed, running, interrupted or pending.
        settings: key of the training config -> its value in this run.
        values: name of an objective -> its value.
        folder: of the run, absolute or from the current folder.
        reason: why it has failed or was ended. step: optimizer steps at its last checkpoint. seconds: how long it ran.
    """

    name: str
    state: str
    settings: dict[str, Any]
    values: dict[str, float]
    folder: Path
    reason: str = ""
    step: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class SweepTable:
    """All runs of a sweep.

    Attributes:
        title: of its page. rows: in the order in which they were started.
        objectives: name -> whether larger is better; the first one sorts the best runs.
        importance: setting -> its share of the variance of the first objective; empty where it was not computed.
    """

    title: str
    rows: Sequence[Row]
    objectives: dict[str, bool]
    importance: dict[str, float] = field(default_factory=dict)

    @property
    def settings(self) -> list[str]:
        """Names of the settings that any run has."""
        return list(dict.fromkeys(key for row in self.rows for key in row.settings))

    @property
    def finished(self) -> list[Row]:
        """The finished runs with a value of the first objective, the best first."""
        name = next(iter(self.objectives), None)
        if name is None:
            return []
        known = [row for row in self.rows if row.state == "finished" and name in row.values]
        return sorted(known, key=lambda row: row.values[name], reverse=self.objectives[name])

    def main_effects(self) -> list[tuple[str, Any, int, float]]:
        """(setting, value, number of finished runs with it, their mean of the first objective), for repeated values."""
        name = next(iter(self.objectives), None)
        effects = []
        for key in self.settings:
            by_value: dict[Any, list[float]] = {}
            for row in sorted(self.finished, key=lambda row: self.rows.index(row)):
                by_value.setdefault(row.settings.get(key), []).append(row.values[str(name)])
            if len(by_value) > 1:
                effects += [(key, value, len(found), sum(found) / len(found)) for value, found in by_value.items()]
        return effects


def write_table(path: Path, sweep: SweepTable) -> None:
    """Write a row a run: number, state, settings, objectives, steps, seconds, reason and folder."""
    columns = ["run", "state", *sweep.settings, *sweep.objectives, "step", "seconds", "reason", "folder"]
    with write_atomically(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in sweep.rows:
            values = {name: f"{value:.10g}" for name, value in row.values.items() if name in sweep.objectives}
            seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
            own = {"run": row.name, "state": row.state, "step": row.step, "seconds": seconds, "reason": row.reason}
            writer.writerow({**row.settings, **values, **own, "folder": str(row.folder)})
