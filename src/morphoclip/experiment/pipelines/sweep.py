"""A sweep over normalisation pipelines: every encoder, aggregation and order of steps, on every set of plates."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, open_dict

from morphoclip.evaluation import Protocol
from morphoclip.experiment.pipelines.axes import Axes, Order, chunks
from morphoclip.experiment.pipelines.page import write_page
from morphoclip.experiment.pipelines.processes import Task, scored
from morphoclip.experiment.pipelines.record import RECORD, Record
from morphoclip.experiment.pipelines.results import by_set, over_sets, remarks
from morphoclip.experiment.pipelines.tables import WellSet, described, well_sets
from morphoclip.experiment.plain import as_dict
from morphoclip.experiment.score import Arm
from morphoclip.experiment.tables import read_arm, read_arms
from morphoclip.files import write_atomically
from morphoclip.lock import FolderLock
from morphoclip.progress import progress_bar

TABLE, SETS, PAGE = "sweep.csv", "sweep_by_set.csv", "sweep.html"
KEYS = ("steps", "depth", "replicates", "profiles", "signal", "processes", "restart")
CHUNK = 24  # orders scored between two writes to the record
WORTH_S = 20.0  # work that several processes, which take seconds to start, are started for
INTERRUPTED = 130  # exit status of a command that Ctrl-C has ended
ONE = "profiles"  # the encoder's name where there is one table


def sweep_pipelines(config: DictConfig, protocol: Protocol, output: Path) -> Path:
    """Sweep over the profiles and pipelines of an evaluation's config with `sweep` (configs/sweep/pipelines.yaml).

    Returns:
        The path of the page.
    """
    settings = as_dict(config.sweep)
    if unknown := sorted(set(settings) - set(KEYS)):
        raise ValueError(f"sweep.{unknown[0]} is no key of a sweep of pipelines: it has {', '.join(KEYS)}")
    axes = Axes.of(settings["steps"], settings["depth"], settings.get("replicates", ("well",)))
    arms = encoder_arms(config, protocol)
    sets, notes = well_sets(
        {name: arm.table for name, arm in arms.items()},
        protocol,
        seed=config.seed,
        crossfit=config.crossfit,
        signal_wells=settings.get("signal", "poscon"),
    )
    try:
        table = sweep(sets, axes, output, settings.get("processes"), bool(settings.get("restart", False)))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    for note in dict.fromkeys([*(note for arm in arms.values() for note in arm.notes), *notes]):
        print(note)
    shown = ["pipeline", *(name for name in table if name.startswith(("chosen", "reported")) and "chance" not in name)]
    print(table.loc[table["on_front"], shown].to_string(index=False, float_format="{:.4f}".format))
    print(f"table: {output / TABLE}\nreport: {output / PAGE}")
    return output / PAGE


def encoder_arms(config: DictConfig, protocol: Protocol) -> dict[str, Arm]:
    """Encoder -> its annotated table: those of `sweep.profiles`, or the one that the evaluation names."""
    given = config.sweep.get("profiles")
    if given is None:
        return {ONE: read_arms(config, protocol)[0]}
    if not isinstance(given, DictConfig):
        raise ValueError("sweep.profiles names tables, e.g. sweep.profiles='{cellprofiler: a.csv.gz, mine: b.parquet}'")
    if named := [key for key in ("profiles", "encoder", "checkpoint") if config[key] is not None]:
        raise ValueError(f"give {named[0]}= or sweep.profiles=, not both")
    arms = {}
    for name, profiles in given.items():
        one = config.copy()
        with open_dict(one):
            one.profiles = profiles
        arms[str(name)] = read_arm(one, protocol)
    return arms


def sweep(
    sets: Sequence[WellSet], axes: Axes, output: Path, processes: int | None = None, restart: bool = False
) -> pd.DataFrame:
    """Score every order of steps on every set; writes sweep.csv, sweep_by_set.csv, sweep.html and sweep.jsonl.

    What an earlier start with the same arguments has finished is read from sweep.jsonl.

    Args:
        sets: from `well_sets`. processes: at once; None: as many as this process may use cores, for longer work.
        restart: replace the record of another sweep.

    Returns:
        The rows of sweep.csv: a row per pipeline.

    Raises:
        ValueError: the folder holds another sweep, or every pipeline of at most one step is refused.
    """
    orders = axes.orders()
    encoders = dict.fromkeys(one.encoder for one in sets)
    print(
        f"{len(orders) * len(axes.replicates) * len({(s.encoder, s.aggregation) for s in sets}):,} pipelines "
        f"({len(orders):,} orders of up to {axes.depth} of {len(axes.steps)} steps; encoders: {', '.join(encoders)}; "
        f"replicates: {', '.join(axes.replicates)})\n{described(sets)}\n"
        f"writes {TABLE}, {SETS} and {PAGE} to {output}",
        flush=True,
    )
    with FolderLock(output / ".sweep.lock"):
        record = Record(output / RECORD, _about(sets, axes), restart)
        try:
            _score(sets, axes, orders, record, processes)
        except KeyboardInterrupt:
            print(f"stopped: the same command goes on with {len(record.lines):,} orders in {record.path}", flush=True)
            raise
        record.close([(one.key, order) for one in sets for order in orders])
        lines = list(record.lines.values())
        sets_table = by_set(lines, axes)
        table = over_sets(sets_table)
        _write_csv(sets_table, output / SETS)
        _write_csv(table, output / TABLE)
        about = sorted({f"{one.subset}, {len(one.x):,} wells" for one in sets})
        notes = remarks(lines)
        write_page(output / PAGE, table, f"{len(table):,} pipelines on {'; '.join(about)}", notes)
    for note in notes:
        print(note)
    return table


def _score(sets: Sequence[WellSet], axes: Axes, orders: Sequence[Order], record: Record, processes: int | None) -> None:
    """Score the orders that the record lacks: those of at most one step first, which give the time that all will take."""
    missing = [[order for order in orders if (one.key, order) not in record.lines] for one in sets]
    total = sum(map(len, missing))
    if total < len(orders) * len(sets):
        print(f"goes on: {len(orders) * len(sets) - total:,} of {len(orders) * len(sets):,} are in {record.path}")
    with progress_bar(total=total, unit="order") as bar:
        began, first = time.perf_counter(), [(n, [o for o in part if len(o) < 2]) for n, part in enumerate(missing)]
        for lines in scored(sets, axes, [task for task in first if task[1]], 1):
            record.add(lines)
            bar.update(len(lines))
        _refuse_nothing_scored(record)
        tried = sum(len(task[1]) for task in first)
        rest = [[order for order in part if len(order) > 1] for part in missing]
        tasks: list[Task] = [(n, chunk) for n, part in enumerate(rest) for chunk in chunks(part, CHUNK)]
        seconds = (time.perf_counter() - began) / max(tried, 1) * sum(map(len, rest))
        if processes is None:
            processes = _cores() if seconds > WORTH_S or not tried else 1
        processes = max(1, min(processes, len(tasks)))
        if tried and tasks:
            left = seconds / processes
            text = f"{math.ceil(left)} s" if left < 90 else f"{math.ceil(left / 60)} minutes"
            bar.write(f"about {text} on {processes} cores, going by the first {tried} orders")
        for lines in scored(sets, axes, tasks, processes):
            record.add(lines)
            bar.update(len(lines))


def _refuse_nothing_scored(record: Record) -> None:
    lines = list(record.lines.values())
    if all(line["refused"] for line in lines):
        record.path.unlink()
        raise ValueError(f"no pipeline of at most one step gives profiles: {lines[0]['refused']}")


def _about(sets: Sequence[WellSet], axes: Axes) -> dict[str, Any]:
    """What determines the results, for the first line of the record."""
    wells = {"/".join(one.key): one.sha256() for one in sets}
    return {"format": "morphoclip.pipelines/1", **asdict(axes), "profiles": wells}


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    with write_atomically(path) as partial:
        table.to_csv(partial, index=False, float_format="%.10g")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
