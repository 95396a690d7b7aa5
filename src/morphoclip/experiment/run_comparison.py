"""What differs between runs: config, code, machine and data, and scores with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from morphoclip.experiment.environment import read_starts
from morphoclip.experiment.run_table import Run, Score

ABSENT = "absent"
REPLICATE = "replicate"
FACTS = ("commit", "version", "host", "gpus", "python", "torch", "cuda")  # of the last start


@dataclass(frozen=True)
class Gain:
    """The score of a run minus that of the first, with its 95 % interval if the rows of both could be paired.

    Attributes:
        rows: number of common rows; None if they were not paired, and `value` is the difference of the two scores.
    """

    value: float
    ci_low: float | None = None
    ci_high: float | None = None
    rows: int | None = None

    def __str__(self) -> str:
        if self.rows is None or self.ci_low is None:
            return f"{self.value:+.3f} (not paired)"
        return f"{self.value:+.3f} [{self.ci_low:+.3f}, {self.ci_high:+.3f}] ({self.rows} common rows)"


@dataclass(frozen=True)
class Comparison:
    """The differences between runs; values are in the order of `runs`.

    Attributes:
        config: dotted key -> values, of keys that differ.
        environment: fact of the last start -> values, of those that differ; `package <name>` is the version of a package.
        scores: task -> score of each run, None where a run has none.
        gains: task -> `Gain` of each run over the first; None for the first, and where a score is missing.
    """

    runs: list[str]
    config: dict[str, list[Any]]
    environment: dict[str, list[Any]]
    scores: dict[str, list[Score | None]]
    gains: dict[str, list[Gain | None]]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare at least two runs; the first is the one that gains refer to.

    Raises:
        ValueError: fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError("give at least two runs to compare")
    tasks = list(dict.fromkeys(task for run in runs for task in run.scores))
    scores = {task: [run.scores.get(task) for run in runs] for task in tasks}
    return Comparison(
        runs=[run.name for run in runs],
        config=differing([run.config for run in runs]),
        environment=differing([facts_of_last_start(run.folder) for run in runs]),
        scores=scores,
        gains={task: [None, *(gain(runs[0], run, task) for run in runs[1:])] for task in tasks},
    )


def differing(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Key -> its value in each mapping, "absent" where it is missing, of the keys whose values are not all equal."""
    keys = dict.fromkeys(key for each in values for key in each)
    found = {key: [each.get(key, ABSENT) for each in values] for key in keys}
    return {key: each for key, each in found.items() if any(value != each[0] for value in each)}


def facts_of_last_start(folder: Path) -> dict[str, Any]:
    """Code, machine, packages and datasets of a run's last start; empty for runs that recorded none."""
    starts = read_starts(folder)
    if not starts:
        return {}
    last = starts[-1]
    diff = None if last["diff"] is None else (folder / last["diff"])
    changed = {"uncommitted changes": changed_files(diff) if diff is not None and diff.is_file() else []}
    packages = {f"package {name}": version for name, version in last["packages"].items()}
    datasets = {"datasets": sorted(last.get("datasets", {}).values())}
    return {**{name: last[name] for name in FACTS}, **changed, **datasets, **packages}


def changed_files(diff: Path) -> list[str]:
    """ "<file> +<lines added> -<lines removed>" of each file in a diff of git."""
    counts: dict[str, list[int]] = {}
    name = ""
    for line in diff.read_text(errors="replace").splitlines():
        if line.startswith("diff --git "):
            name = line.rpartition(" b/")[2]
            counts[name] = [0, 0]
        elif line.startswith(("+", "-")) and not line.startswith(("+++ ", "--- ")):
            counts[name][line[0] == "-"] += 1
    return [f"{name} +{added} -{removed}" for name, (added, removed) in counts.items()]


def gain(first: Run, other: Run, task: str) -> Gain | None:
    """The gain of a run over the first in a task, paired where both have the rows for it."""
    if task not in first.scores or task not in other.scores:
        return None
    if task == REPLICATE:
        paired = paired_gain(first, other)
        if paired is not None:
            return paired
    return Gain(other.scores[task].value - first.scores[task].value)


def paired_gain(first: Run, other: Run) -> Gain | None:
    """The gain in the replicate task over the perturbations that both scored; None if there are none.

    Resamples perturbations (`evaluation.compare`). Rotations resample split units, which their tables do not hold: they
    are not paired. Nor are other tasks, whose tables do not say which perturbations a row is made of.
    """
    from morphoclip.evaluation import compare

    cards = [_replicate_card(run) for run in (other, first)]
    if any(card is None for card in cards):
        return None
    try:
        found = compare([cards[0]], [cards[1]], [REPLICATE])
    except ValueError:  # no row in common
        return None
    return Gain(found.value, found.ci_low, found.ci_high, found.n_rows)


def _replicate_card(run: Run) -> Any:
    """A score card of the run's replicate.csv; None without the file, and for a rotation."""
    import pandas as pd

    from morphoclip import schema
    from morphoclip.evaluation import ScoreCard

    path = run.folder / f"{REPLICATE}.csv"
    if not path.is_file() or run.config.get("rotation") or any(key.startswith("rotation.") for key in run.config):
        return None
    table = pd.read_csv(path, dtype={"subset": str, schema.PERTURBATION: str}, keep_default_na=False, na_values=[""])
    rows = table["subset"] + "/" + table[schema.PERTURBATION]
    table = table.assign(row=rows, cluster=table[schema.PERTURBATION])
    return ScoreCard(pd.DataFrame(), {REPLICATE: table}, {})
