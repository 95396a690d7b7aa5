"""`morphoclip runs`: list the runs of an output folder, show one, compare several."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from morphoclip.experiment.run_comparison import Comparison
    from morphoclip.experiment.run_table import Run, Score

app = typer.Typer(invoke_without_command=True, help="List runs and their scores, show one, compare several.")
SHOWN = ("train/loss", "val/loss", "val/knn")  # columns of a list besides the scores
COLOURS = {"running": "green", "failed": "red", "died": "red", "interrupted": "yellow", "pruned": "dim"}
DIGITS, WIDEST = 4, 120

Output = Annotated[Path | None, typer.Option(help="output_dir of the runs (default: outputs)")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Name = Annotated[str, typer.Argument(help="id, name/id or folder of a run, or latest")]


@app.callback()
def runs(
    context: typer.Context,
    output_dir: Output = None,
    state: Annotated[
        list[str] | None, typer.Option(help="running, done, interrupted, failed, pruned or died (repeatable)")
    ] = None,
    name: Annotated[str | None, typer.Option(help="part of the name, or a pattern with * and ?")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="key=value of the config, e.g. encoder.name=vit_small (repeatable)")
    ] = None,
    since: Annotated[str | None, typer.Option(help="active since: 2026-11-27, 90m, 36h, 7d, 2w")] = None,
    sort: Annotated[
        str | None, typer.Option(help="a column, value or score; with - before it the largest first")
    ] = None,
    show: Annotated[str | None, typer.Option(help="further values to print, separated by commas")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="rows to print")] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV with all values and scores")] = False,
) -> None:
    """List runs: state, step, time, last logged values and scores; those active last come first.

    A run that is recorded as running and whose process is gone has `died`; `resume=` goes on with it.
    """
    context.obj = output_dir
    if context.invoked_subcommand is not None:
        return
    from morphoclip.experiment.run_selection import ordered, select
    from morphoclip.experiment.run_table import read_runs

    found = select(read_runs(output_dir or Path("outputs")), state or (), name, where or (), since)
    found = ordered(found, sort)[:limit]
    if as_json:
        _print_json([run.as_json() for run in found])
    elif as_csv:
        _print_csv(found)
    else:
        _print_list(found, show.split(",") if show else [])


@app.command()
def show(context: typer.Context, run: Name, output_dir: Output = None, as_json: AsJson = False) -> None:
    """Print one run: state, code and machine of its starts, last logged values, scores."""
    from morphoclip.experiment.environment import read_starts

    (found,) = _runs_named([run], output_dir or context.obj)
    starts = read_starts(found.folder)
    if as_json:
        _print_json({**found.as_json(), "starts": starts, "config": found.config})
        return
    of = "" if found.max_steps is None else f" of {found.max_steps}"
    lines = {"state": found.state + (f" ({found.reason})" if found.reason else ""), "step": f"{_text(found.step)}{of}"}
    lines |= {"started": _text(found.started), "time": _duration(found.seconds), "folder": str(found.folder)}
    for number, start in enumerate(starts, 1):
        code = f"commit {start['commit'][:12]}" if start["commit"] else f"version {start['version']}"
        code += f" with {start['diff']}" if start["diff"] else ""
        gpus = ", ".join(start["gpus"]) or "no GPU"
        lines[f"start {number}"] = f"{start['started']}, {code}, {start['host']}, {gpus}, torch {start['torch']}"
    datasets = starts[-1].get("datasets", {}) if starts else {}
    lines |= {f"dataset {root}": f"manifest {manifest[:12]}" for root, manifest in datasets.items()}
    lines |= {name: _text(value) for name, value in found.values.items()}
    lines |= {f"score/{task}": f"{_score(score)}, chance {_text(score.chance)}" for task, score in found.scores.items()}
    typer.echo(found.name)
    _print_table(["", ""], [[name, value] for name, value in lines.items()])


@app.command()
def compare(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(help="two or more runs: id, name/id, folder, or latest")],
    output_dir: Output = None,
    packages: Annotated[bool, typer.Option(help="also packages whose versions differ")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what differs between runs: config, code, machine and data, and the scores with their gain over the first.

    The gain in the replicate task is paired over common perturbations; in others it is the difference of the scores.
    """
    from morphoclip.experiment.run_comparison import compare_runs

    compared = compare_runs(_runs_named(runs, output_dir or context.obj))
    if as_json:
        _print_json(compared.as_json())
        return
    others = {name: values for name, values in compared.environment.items() if not name.startswith("package ")}
    differing = {name: values for name, values in compared.environment.items() if name not in others}
    _print_differences("config", compared.config, compared.runs)
    _print_differences("code, machine and data", others, compared.runs)
    if packages:
        _print_differences("packages", differing, compared.runs)
    elif differing:
        typer.echo(f"{len(differing)} packages have other versions (--packages)\n")
    _print_scores(compared)


def _runs_named(names: Sequence[str], output_dir: Path | None) -> list[Run]:
    from morphoclip.experiment.run_selection import named
    from morphoclip.experiment.run_table import read_run, read_runs
    from morphoclip.experiment.runs import RECORD

    if all((Path(name) / RECORD).is_file() for name in names):
        return [read_run(Path(name)) for name in names]
    known = read_runs(output_dir or Path("outputs"))
    return [named(known, name) for name in names]


def _print_list(runs: Sequence[Run], further: Sequence[str]) -> None:
    if not runs:
        typer.echo("no runs")
        return
    columns = [run.columns() for run in runs]
    scores = dict.fromkeys(name for each in columns for name in each if name.startswith("score/"))
    names = [*(name for name in SHOWN if any(name in each for each in columns)), *further, *scores]
    unknown = [name for name in further if not any(name in each for each in columns)]
    if unknown:
        raise typer.BadParameter(f"--show {unknown[0]}: no run has this value")
    rows = []
    for run, each in zip(runs, columns, strict=True):
        step = _text(run.step) + ("" if run.max_steps is None else f"/{run.max_steps}")
        active = run.active.astimezone().strftime("%Y-%m-%d %H:%M")
        rows.append([run.name, run.state, step, _duration(run.seconds), active, *(_text(each.get(n)) for n in names)])
    _print_table(["run", "state", "step", "time", "active", *names], rows, colours=COLOURS)
    if sys.stdout.isatty():
        counts = Counter(run.state for run in runs)
        typer.echo(f"{len(runs)} runs: {', '.join(f'{number} {state}' for state, number in counts.items())}")


def _print_json(content: Any) -> None:
    """JSON as its standard has it: a number that is not finite is null."""

    def finite(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: finite(value) for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [finite(value) for value in node]
        return None if isinstance(node, float) and not math.isfinite(node) else node

    typer.echo(json.dumps(finite(content), indent=1, allow_nan=False))


def _print_csv(runs: Sequence[Run]) -> None:
    columns = [run.columns() for run in runs]
    writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(name for each in columns for name in each)))
    writer.writeheader()
    writer.writerows(columns)


def _print_differences(title: str, values: dict[str, list[Any]], runs: Sequence[str]) -> None:
    if not values:
        typer.echo(f"{title}: the same\n")
        return
    _print_table([title, *runs], [[key, *map(_plain, each)] for key, each in values.items()])
    typer.echo()


def _print_scores(compared: Comparison) -> None:
    if not compared.scores:
        typer.echo("scores: none of the runs is scored")
        return
    rows = []
    for task, scores in compared.scores.items():
        rows.append([task, *("" if score is None else _score(score) for score in scores)])
        rows.append(["  gain", *("" if gain is None else str(gain) for gain in compared.gains[task])])
    _print_table(["mean average precision [95 %]", *compared.runs], rows)


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], colours: dict[str, str] | None = None) -> None:
    """A table of rich on a terminal, up to 120 columns wide where it needs them; in a pipe plain text, nothing cut."""
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Column, Table
        from rich.text import Text

        table = Table(*(Column(Text(head), overflow="fold") for head in heads), show_header=any(heads), box=SIMPLE_HEAD)
        for row in rows:
            table.add_row(*(Text(cell, style=(colours or {}).get(cell, "")) for cell in row))
        needed = Console(width=WIDEST).measure(table).maximum
        Console(width=max(Console().width, needed)).print(table)
        return
    lines = [heads, *rows] if any(heads) else rows
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _score(score: Score) -> str:
    interval = "" if score.ci_low is None else f" [{score.ci_low:.3f}, {score.ci_high:.3f}]"
    return f"{score.value:.3f}{interval}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return "" if value is None else f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
