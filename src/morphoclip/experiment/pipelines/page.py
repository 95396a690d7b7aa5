"""One offline HTML page of a sweep: signal against batch effect on the reported half, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.experiment.pipelines.results import above_chance
from morphoclip.experiment.pipelines.scores import SCORES
from morphoclip.files import write_atomically

COLOURS = ("#0f6b74", "#b4551d", "#5b4a9e", "#8a7a1f", "#a3315c", "#3d6f2c", "#2f5f9e", "#6b6b6b")  # by encoder
LEFT, RIGHT, TOP, BOTTOM = 60.0, 560.0, 20.0, 420.0  # of the plot; names of the front stand to its right
NAME_HEIGHT = 17.0
NAMED = 24  # longest front whose pipelines are named beside the plot; of a longer one, the best by signal
AT_MOST = 4000  # drawn dots that are not on the front


def write_page(path: Path, table: pd.DataFrame, title: str, notes: Sequence[str] = ()) -> Path:
    """Write the page of the rows of sweep.csv."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("morphoclip.experiment.pipelines", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    finite = table.dropna(subset=list(SCORES)).reset_index(drop=True)
    values = pd.DataFrame({name: above_chance(finite, name) for name in SCORES})
    encoders = list(dict.fromkeys(table["encoder"]))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(encoders))}
    x, y = _Axis(values["reported_batch_effect"], LEFT, RIGHT), _Axis(values["reported_signal"], BOTTOM, TOP)
    on_front = finite["on_front"].to_numpy(bool)
    others = np.flatnonzero(~on_front)
    drawn = others[:: -(-len(others) // AT_MOST)] if len(others) else others
    front = np.flatnonzero(on_front)
    dots = [
        {
            "x": x.at(values["reported_batch_effect"][i]),
            "y": y.at(values["reported_signal"][i]),
            "name": finite["pipeline"][i],
            "colour": colour[finite["encoder"][i]],
            "front": bool(on_front[i]),
        }
        for i in (*drawn, *front)
    ]
    named = _spread([dot for dot in dots if dot["front"]][:NAMED])
    html = environment.get_template("page.html.j2").render(
        title=title,
        dots=dots,
        named=named,
        height=max(BOTTOM, named[-1]["label_y"] if named else 0) + 60,
        x_ticks=x.ticks(),
        y_ticks=y.ticks(),
        plot={"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        legend=[{"name": name, "colour": colour[name]} for name in encoders],
        front=[{"name": finite["pipeline"][i], **values.loc[i].to_dict(), **_raw(finite.loc[i])} for i in front],
        count=len(table),
        refused=len(table) - len(finite),
        left_undrawn=len(others) - len(drawn),
        notes=list(notes),
    )
    with write_atomically(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return path


class _Axis:
    """Values ▶ positions between `start` and `end` of the drawing."""

    def __init__(self, values: pd.Series, start: float, end: float) -> None:
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        margin = max(0.05 * (high - low), 0.005)
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def at(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low), 1)

    def ticks(self) -> list[dict[str, object]]:
        step = 10.0 ** np.floor(np.log10(self.high - self.low))
        step = next(s for s in (step / 5, step / 2, step, 2 * step) if (self.high - self.low) / s <= 6)
        values = np.arange(np.ceil(self.low / step), np.floor(self.high / step) + 1) * step
        digits = max(0, int(np.ceil(-np.log10(step) - 1e-9)))
        return [{"at": self.at(value), "text": f"{value + 0.0:.{digits}f}"} for value in values]


def _spread(front: list[dict]) -> list[dict]:
    """Dots with `label_y`, from top to bottom, so that their names do not overlap."""
    last = 0.0
    for dot in (ordered := sorted(front, key=lambda dot: dot["y"])):
        dot["label_y"] = last = max(dot["y"], last + NAME_HEIGHT)
    return ordered


def _raw(row: pd.Series) -> dict[str, float]:
    return {f"{name}_map": float(row[name]) for name in SCORES}
