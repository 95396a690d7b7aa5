"""A walk through the orders of steps on one set of wells: steps that neighbouring orders share are applied once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from morphoclip.experiment.pipelines.axes import Axes, Order
from morphoclip.experiment.pipelines.replicates import Profiles
from morphoclip.experiment.pipelines.scores import Scorer
from morphoclip.experiment.pipelines.tables import WellSet
from morphoclip.profiling.group_statistics import apply_groups, fit_groups, groups_of
from morphoclip.profiling.normalize import check_finite
from morphoclip.profiling.step import Step, parse_step


@dataclass(frozen=True)
class State:
    """The wells after the steps of `order`: features and their names, or why a step refused them.

    Attributes:
        notes: what steps warned of.
    """

    order: Order
    x: np.ndarray
    names: list[str]
    refused: str = ""
    notes: tuple[str, ...] = ()


@dataclass
class Walk:
    """Scores of orders on one set of wells. Give the orders depth first: one table per step of an order is kept.

    Attributes:
        wells: the set. axes: steps and levels of replicates.
    """

    wells: WellSet
    axes: Axes
    path: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = {name: parse_step(step) for name, step in self.axes.steps.items()}
        self.scorers = {}
        for level in self.axes.replicates:
            try:
                self.scorers[level] = Scorer(Profiles.of(self.wells, level))
            except ValueError as error:
                raise ValueError(f"set {self.wells.subset}, sweep.replicates={level}: {error}") from error

    def results(self, orders: Iterable[Order]) -> Iterator[dict[str, Any]]:
        """For each order: its `set` and `order`, `scores` by level of replicates or why it is `refused`, and `notes`."""
        for order in orders:
            state = self.reach(order)
            scores, refused = {}, state.refused
            if not refused:
                try:
                    scores = {level: scorer.score(state.x) for level, scorer in self.scorers.items()}
                except ValueError as error:
                    refused = str(error)
            yield {
                "set": list(self.wells.key),
                "order": list(order),
                "scores": scores,
                "refused": refused,
                "notes": list(state.notes),
            }

    def reach(self, order: Order) -> State:
        """The wells after the steps of `order`, from the last common step with the order before."""
        while self.path and self.path[-1].order != order[: len(self.path[-1].order)]:
            self.path.pop()
        if not self.path:
            self.path.append(State((), self.wells.x, self.wells.names))
        while len(self.path[-1].order) < len(order):
            self.path.append(self._after(self.path[-1], order[len(self.path[-1].order)]))
        return self.path[-1]

    def _after(self, state: State, name: str) -> State:
        """`state` after one more step."""
        order = (*state.order, name)
        if state.refused:
            return State(order, state.x[:0], [], state.refused, state.notes)
        x, names = state.x, state.names
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for step in self.steps[name]:
                    x, names = applied(step, self.wells.metadata, x, names)
            except Exception as error:  # a step can be the user's own, and its failure is a row of the result
                return State(
                    order, state.x[:0], [], f"after {len(state.order)} steps, {name}: {_line(error)}", state.notes
                )
        notes = dict.fromkeys((*state.notes, *(f"{name}: {warning.message}" for warning in caught)))
        return State(order, x, names, "", tuple(notes))


def applied(step: Step, metadata: pd.DataFrame, x: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Features (N, D') of all wells, and their names, after a step that is fitted on them, as in `Normalizer`."""
    if not getattr(step.module, "TAKES_MISSING", False):
        check_finite(x, names, metadata)
    groups = groups_of(step, metadata)
    states = fit_groups(step, groups, {}, x, names, metadata, fitting=True)
    return apply_groups(step, groups, states, x, names)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
