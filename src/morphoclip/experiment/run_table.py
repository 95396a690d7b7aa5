"""The runs of an output folder: state, step, duration, last logged values and scores, read from the runs' small files.

Nothing here imports torch or pandas, so that a thousand runs are listed in a second.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from morphoclip.experiment.runs import FINISHED, LOCK, RECORD, RUNNING, read_record
from morphoclip.lock import is_held

DONE, DIED = "done", "died"
DEPTH = 5  # folders between the output folder and a run, at most: sweeps have some of their own
TAIL = 64 * 1024  # bytes of a table of curves in which a value is looked for
SCORES = ("mean_average_precision_ungated", "mean_average_precision")  # the first that a task has is its main score
PREFIX = "score/"


@dataclass(frozen=True)
class Score:
    """A run's main score in a task, over all subsets: mean average precision, 95 % interval, rows and chance."""

    value: float
    ci_low: float | None
    ci_high: float | None
    n: float | None
    chance: float | None


@dataclass(frozen=True)
class Run:
    """A run as its folder describes it.

    Attributes:
        name: its folder, relative to the output folder.
        state: running, done, interrupted, failed, pruned, or died: recorded as running by a process that is gone.
        step: the last one logged, or else that of the last checkpoint. max_steps: None if the run ends otherwise.
        started: of the last start. active: when it ended, or last wrote something.
        values: last logged value of each name. scores: task -> `Score`. config: dotted key -> value.
    """

    name: str
    folder: Path
    state: str
    reason: str | None
    step: int | None
    max_steps: int | None
    started: datetime | None
    active: datetime
    values: dict[str, float]
    scores: dict[str, Score]
    config: dict[str, Any] = field(repr=False)

    @property
    def seconds(self) -> float | None:
        """Duration of the last start."""
        return None if self.started is None else max(0.0, (self.active - self.started).total_seconds())

    def columns(self) -> dict[str, Any]:
        """Name of a column -> what to sort and print: the run's facts, logged values, and `score/<task>`."""
        facts: dict[str, Any] = {"run": self.name, "state": self.state, "step": self.step, "max_steps": self.max_steps}
        facts |= {"started": self.started, "active": self.active, "seconds": self.seconds, "reason": self.reason}
        return {**facts, **self.values, **{f"{PREFIX}{task}": score.value for task, score in self.scores.items()}}

    def as_json(self) -> dict[str, Any]:
        """The run as plain data, without its config."""
        own = {name: value for name, value in vars(self).items() if name != "config"}
        times = {name: own[name] and own[name].isoformat(timespec="seconds") for name in ("started", "active")}
        scores = {task: asdict(score) for task, score in self.scores.items()}
        return {**own, "folder": str(self.folder), **times, "seconds": self.seconds, "scores": scores}


def read_runs(output_dir: Path) -> list[Run]:
    """All runs in an output folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not output_dir.is_dir():
        raise FileNotFoundError(f"there is no folder {output_dir}: give the output_dir of your runs (--output-dir)")
    return [read_run(folder, output_dir) for folder in run_folders(output_dir)]


def run_folders(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """The folders below `folder` that have a run.json; nothing is looked for within a run."""
    with os.scandir(folder) as entries:
        below = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    for path in sorted(below):
        if (path / RECORD).is_file():
            yield path
        elif depth > 1:
            yield from run_folders(path, depth - 1)


def read_run(folder: Path, output_dir: Path | None = None) -> Run:
    """The run in a folder; one whose run.json cannot be read is in the state `unknown`."""
    try:
        record = read_record(folder)
    except ValueError as error:
        record = {"reason": f"{RECORD} cannot be read: {error}"}
    values = last_values(folder / "logs/metrics.csv")
    name = folder if output_dir is None or output_dir not in folder.parents else folder.relative_to(output_dir)
    step = values.pop("step", record.get("step"))
    config = resolved(record.get("config", {}))
    max_steps = config.get("trainer.max_steps")
    state = state_of(folder, record)
    return Run(
        name=str(name),
        folder=folder,
        state=state,
        reason=record.get("reason"),
        step=None if step is None else int(step),
        max_steps=max_steps if isinstance(max_steps, int) and max_steps > 0 else None,
        started=_time(record.get("started")),
        active=_active(folder, record, state),
        values=values,
        scores=read_scores(folder / "metrics.csv"),
        config=config,
    )


def state_of(folder: Path, record: Mapping[str, Any]) -> str:
    """The state of a run: as recorded, but `done` for finished, and `died` for a running one whose process is gone."""
    state = record.get("state", "unknown")
    if state == RUNNING:
        return RUNNING if is_held(folder / LOCK) else DIED
    return DONE if state == FINISHED else state


def _active(folder: Path, record: Mapping[str, Any], state: str) -> datetime:
    """When a run ended; now if it runs; when it last wrote if it died."""
    if state == RUNNING:
        return datetime.now().astimezone()
    ended = _time(record.get("ended"))
    if ended is not None and state != DIED:
        return ended
    written = [path.stat().st_mtime for path in (folder / RECORD, folder / "logs/metrics.csv") if path.is_file()]
    return datetime.fromtimestamp(max(written)).astimezone()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def last_values(path: Path) -> dict[str, float]:
    """Name -> last value in a table of curves, of which only the end is read if it is long; empty without one.

    Names that have no value in the last 64 KiB are left out.
    """
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        head = file.readline()
        size = file.seek(0, io.SEEK_END)
        file.seek(max(len(head), size - TAIL))
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]  # without a row that is being written
    if size - TAIL > len(head):
        whole = whole[whole.find(b"\n") + 1 :]
    names = next(csv.reader([head.decode()]), [])
    values: dict[str, float] = {}
    for row in reversed(list(csv.reader(whole.decode().splitlines()))):
        for name, value in zip(names, row, strict=False):
            if value and name not in values:
                values[name] = float(value)
        if len(values) == len(names):
            break
    return {name: values[name] for name in names if name in values}


def read_scores(path: Path) -> dict[str, Score]:
    """Task -> main score in a run's metrics.csv; empty without one."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = {(row["task"], row["metric"]): row for row in csv.DictReader(file) if row["subset"] == "all"}
    scores = {}
    for task in dict.fromkeys(task for task, _ in rows):
        main = next((rows[task, metric] for metric in SCORES if (task, metric) in rows), None)
        if main is not None:
            low, high, n, chance = (float(main[k]) if main[k] else None for k in ("ci_low", "ci_high", "n", "chance"))
            scores[task] = Score(float(main["value"]), low, high, n, chance)
    return scores


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flat config in which values that are references, `${other.key}`, have the value they refer to."""

    def value_of(key: str, seen: tuple[str, ...] = ()) -> Any:
        value = config[key]
        found = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        return value_of(found[1], (*seen, key)) if found and found[1] in config and found[1] not in seen else value

    return {key: value_of(key) for key in config}
