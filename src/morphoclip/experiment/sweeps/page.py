"""One offline HTML page of a sweep: settings against objective, what matters, the best runs, the state of all."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morphoclip.experiment.sweeps.objective import SHOWN
from morphoclip.experiment.sweeps.space import as_text
from morphoclip.experiment.sweeps.table import Row, SweepTable
from morphoclip.files import write_atomically

BEST = 10  # runs in the table of the best
LOG_ABOVE = 10.0  # positive numbers whose largest and smallest differ by this factor are drawn by their logarithm
FEW = 5  # at most so many different numbers are each a tick of their axis
TEAL, GREY, RUST = "#0f6b74", "#8d99a6", "#b4551d"


def write_page(path: Path, sweep: SweepTable) -> Path:
    """Write the page of a sweep; links to the runs' reports are relative to it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("morphoclip.experiment.sweeps", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    script = plotly_script()
    figures = {"parallel": parallel_coordinates(sweep), "history": history(sweep)} if script and sweep.finished else {}
    html = environment.get_template("page.html.j2").render(
        sweep=sweep,
        objective=next(iter(sweep.objectives), "no objective"),
        lede=lede(sweep),
        best=[(row, link(row, path.parent)) for row in sweep.finished[:BEST]],
        runs=[(row, link(row, path.parent)) for row in sweep.rows],
        effects=sweep.main_effects() if not sweep.importance else [],
        plotly=script if figures else "",
        has_plotly=bool(script),
        figures=json.dumps(figures).replace("<", "\\u003c"),
    )
    with write_atomically(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return path


def plotly_script() -> str:
    """Plotly's library for the page; empty if it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return ""
    return get_plotlyjs()


def lede(sweep: SweepTable) -> str:
    """The first paragraph: how many runs are in which state, and the best one."""
    counts = Counter(row.state for row in sweep.rows)
    states = ", ".join(f"{number} {state}" for state, number in counts.most_common())
    text = f"{len(sweep.rows)} runs: {states}." if sweep.rows else "No run has started yet."
    if sweep.finished:
        name, maximize = next(iter(sweep.objectives.items()))
        row = sweep.finished[0]
        text += (
            f" Best by {name} ({'larger' if maximize else 'smaller'} is better): {row.name}, {shown(row.values[name])}."
        )
    return text


def link(row: Row, folder: Path) -> str | None:
    """Relative address of a run's report, of its curves if it has none, or of its folder; None before it has started."""
    for target in (row.folder / "report.html", row.folder / "logs/metrics.csv", row.folder):
        if target.exists():
            return Path(os.path.relpath(target, folder)).as_posix()
    return None


def shown(value: Any) -> str:
    """A value as text: numbers with five digits."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.5g}"
    return "" if value is None else as_text(value)


def parallel_coordinates(sweep: SweepTable) -> dict[str, Any]:
    """Plotly's figure of finished runs: an axis a setting, and the objectives; coloured by the first objective."""
    rows = list(reversed(sweep.finished))  # the best is drawn last
    name, maximize = next(iter(sweep.objectives.items()))
    axes = [axis(key, [row.settings.get(key) for row in rows]) for key in sweep.settings]
    axes += [
        axis(key, [row.values.get(key, math.nan) for row in rows]) for key in sweep.objectives if _known(rows, key)
    ]
    color = {"color": [row.values[name] for row in rows], "showscale": True, "reversescale": not maximize}
    color |= {"colorscale": [[0, "#e3d9d0"], [0.5, RUST], [1, TEAL]], "colorbar": {"thickness": 12, "outlinewidth": 0}}
    return {
        "data": [{"type": "parcoords", "line": color, "dimensions": axes, "labelangle": -12, "labelside": "top"}],
        "layout": {"margin": {"l": 70, "r": 40, "t": 90, "b": 30}, "font": {"size": 11}, "paper_bgcolor": "#fff"},
    }


def _known(rows: Sequence[Row], key: str) -> bool:
    return all(key in row.values for row in rows)


def axis(label: str, values: Sequence[Any]) -> dict[str, Any]:
    """An axis of parallel coordinates: numbers as they are or by their logarithm, anything else by its rank."""
    numbers = [number(value) for value in values]
    if any(value is None for value in numbers):
        names = sorted({shown(value) for value in values})
        places = [names.index(shown(value)) for value in values]
        return {"label": label, "values": places, "tickvals": list(range(len(names))), "ticktext": names}
    known = [float(value) for value in numbers if value is not None]
    if min(known) > 0 and max(known) / min(known) > LOG_ABOVE:
        ends = range(math.floor(math.log10(min(known))), math.ceil(math.log10(max(known))) + 1)
        ticks = {"tickvals": list(ends), "ticktext": [f"{10.0**end:g}" for end in ends]}
        return {"label": label, "values": [math.log10(value) for value in known], **ticks}
    if len(set(known)) <= FEW:
        few = sorted(set(known))
        return {"label": label, "values": known, "tickvals": few, "ticktext": [shown(value) for value in few]}
    return {"label": label, "values": known}


def number(value: Any) -> float | None:
    """A number, also if it is text as in an override; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def history(sweep: SweepTable) -> dict[str, Any]:
    """Plotly's figure of the first objective by run, and the best so far."""
    name, maximize = next(iter(sweep.objectives.items()))
    found = [(place, row) for place, row in enumerate(sweep.rows) if row in sweep.finished]
    values = [row.values[name] for _, row in found]
    best = [(max if maximize else min)(values[: i + 1]) for i in range(len(values))]
    x = [place for place, _ in found]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": "run",
        "x": x,
        "y": values,
        "text": [r.name for _, r in found],
    }
    line = {"type": "scatter", "mode": "lines", "name": "best so far", "x": x, "y": best, "hoverinfo": "skip"}
    grid = {"gridcolor": "#e3e7eb", "zeroline": False}
    return {
        "data": [
            {**line, "line": {"color": TEAL, "shape": "hv"}},
            {**dots, "marker": {"color": GREY, "size": 9}, "hovertemplate": "%{text}: %{y:.5g}<extra></extra>"},
        ],
        "layout": {
            "margin": {"l": 60, "r": 20, "t": 10, "b": 45},
            "xaxis": {**grid, "title": {"text": "run"}},
            "yaxis": {**grid, "title": {"text": name}},
            "legend": {"orientation": "h", "y": 1.12},
            "font": {"size": 11},
        },
    }


def default_objectives(values: Sequence[dict[str, float]]) -> dict[str, bool]:
    """The objectives of a grid: scores first, then `SHOWN` values; losses are better when smaller."""
    names = list(dict.fromkeys(name for known in values for name in known))
    names.sort(key=lambda name: (name in SHOWN, SHOWN.index(name) if name in SHOWN else 0))
    return {name: not name.endswith("loss") for name in names}
