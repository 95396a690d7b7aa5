"""Which runs of a list, and in which order: by state, name, config, time, or any logged value or score."""

from __future__ import annotations

import difflib
import fnmatch
import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from morphoclip.experiment.run_table import DIED, DONE, Run, read_run
from morphoclip.experiment.runs import FAILED, FINISHED, INTERRUPTED, LATEST, RECORD, RUNNING

STATES = (RUNNING, DONE, INTERRUPTED, FAILED, "pruned", DIED)
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def select(
    runs: Iterable[Run],
    states: Sequence[str] = (),
    name: str | None = None,
    where: Sequence[str] = (),
    since: str | None = None,
) -> list[Run]:
    """The runs to which all conditions apply.

    Args:
        states: any of `STATES`.
        name: part of the run's name, or a pattern with * and ?.
        where: `key=value` of the config each, with the dotted key.
        since: active since a date (2026-11-27, also with a time) or for a while (90m, 36h, 7d, 2w).

    Raises:
        ValueError: an unknown state, a key that no run has, or a time that cannot be read.
    """
    chosen = list(runs)
    wanted = [DONE if state == FINISHED else state for state in states]
    unknown = sorted(set(wanted) - set(STATES))
    if unknown:
        raise ValueError(f"--state {unknown[0]}: choose among {', '.join(STATES)}")
    for condition in where:
        chosen = _where(chosen, condition)
    if wanted:
        chosen = [run for run in chosen if run.state in wanted]
    if name is not None:
        pattern = name if re.search(r"[*?\[]", name) else f"*{name}*"
        chosen = [run for run in chosen if fnmatch.fnmatch(run.name, pattern)]
    if since is not None:
        first = time_of(since)
        chosen = [run for run in chosen if run.active >= first]
    return chosen


def _where(runs: Sequence[Run], condition: str) -> list[Run]:
    key, equals, text = condition.partition("=")
    if not equals:
        raise ValueError(f"--where {condition}: give key=value, e.g. encoder.name=vit_small")
    known = sorted({known for run in runs for known in run.config})
    if runs and key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known[:3]
        raise ValueError(f"--where {condition}: no config has the key {key}; nearest: {', '.join(near)}")
    try:
        wanted = json.loads(text)
    except ValueError:
        wanted = text
    return [run for run in runs if key in run.config and (run.config[key] == wanted or str(run.config[key]) == text)]


def time_of(text: str) -> datetime:
    """The time that `text` (see `select`) says.

    Raises:
        ValueError: neither a date nor a duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if found:
        return datetime.now().astimezone() - timedelta(**{UNITS[found[2]]: float(found[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise ValueError(f"--since {text}: give a date (2026-11-27) or a duration (90m, 36h, 7d, 2w)") from error


def ordered(runs: Sequence[Run], by: str | None = None) -> list[Run]:
    """The runs by a column of `Run.columns`, those without it last; by default the one active last comes first.

    Args:
        by: name of the column; of a score the task is enough. With "-" before it the largest comes first.

    Raises:
        ValueError: no run has such a column.
    """
    key, descending = (by.removeprefix("-"), by.startswith("-")) if by else ("active", True)
    columns = [run.columns() for run in runs]
    known = list(dict.fromkeys(name for each in columns for name in each))
    key = next((name for name in (key, f"score/{key}", f"train/{key}") if name in known), key)
    if runs and key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
        raise ValueError(f"--sort {key}: no run has such a column{'; nearest: ' if near else ''}{', '.join(near)}")

    def value(position: int) -> Any:
        found = columns[position].get(key)
        return None if isinstance(found, float) and found != found else found

    having = [position for position in range(len(runs)) if value(position) is not None]
    without = [position for position in range(len(runs)) if value(position) is None]
    return [runs[position] for position in [*sorted(having, key=value, reverse=descending), *without]]


def named(runs: Sequence[Run], asked: str) -> Run:
    """The run of a name, an id (its last part), a path, or the one active last for "latest".

    Raises:
        FileNotFoundError: there is none.
        ValueError: several have this id.
    """
    if asked != LATEST and (Path(asked) / RECORD).is_file():
        return read_run(Path(asked))
    if asked == LATEST and runs:
        return ordered(runs)[0]
    found = [run for run in runs if asked in (run.name, run.folder.name)]
    if len(found) > 1:
        raise ValueError(f"{asked} is the id of several runs: give one of {', '.join(run.name for run in found)}")
    if not found:
        by_id = {run.folder.name: run.name for run in runs}
        close = difflib.get_close_matches(asked, [*by_id.values(), *by_id], n=3, cutoff=0.4)
        nearest = list(dict.fromkeys(by_id.get(name, name) for name in close))
        hint = (
            f"nearest: {', '.join(nearest)}" if nearest else f"there are {len(runs)} runs; `morphoclip runs` lists them"
        )
        raise FileNotFoundError(f"there is no run {asked!r}; {hint}")
    return found[0]
