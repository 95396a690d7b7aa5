"""What a measure yields: rows of metrics.csv, and tables behind them."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

NOTHING = float("nan")


class Row(NamedTuple):
    """One number of a set of plates (or a pair of sets), with its chance level and interval where they are known."""

    subset: str
    metric: str
    value: float
    n: int
    chance: float = NOTHING
    ci_low: float = NOTHING
    ci_high: float = NOTHING


class Detail(NamedTuple):
    """A table behind the numbers, written as `<task>.csv`; the tables of several sets are joined."""

    table: pd.DataFrame


class Note(NamedTuple):
    """What was left out or cannot be scored, and why; shown with the scores."""

    text: str
