"""Fixtures of small screens, as tables and as sets of wells."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from morphoclip.evaluation import Protocol
from morphoclip.experiment.pipelines.axes import Axes
from morphoclip.experiment.pipelines.tables import WellSet, well_sets
from tests.experiment.pipelines.screens import STEPS, draw_screen


@pytest.fixture(scope="session")
def screen() -> Callable[..., pd.DataFrame]:
    return draw_screen


@pytest.fixture(scope="session")
def wells() -> Callable[..., WellSet]:
    """wells(seed, …) -> the one set of a drawn screen, as the sweep sees it."""

    def make(*args, crossfit: bool = True, **options) -> WellSet:
        return well_sets({"drawn": draw_screen(*args, **options)}, Protocol(), crossfit=crossfit)[0][0]

    return make


@pytest.fixture(scope="session")
def axes() -> Callable[..., Axes]:
    """axes(depth, *names of STEPS, replicates=…)"""

    def make(depth: int, *names: str, replicates: tuple[str, ...] = ("well",)) -> Axes:
        return Axes.of({name: STEPS[name] for name in names or STEPS}, depth, replicates)

    return make
