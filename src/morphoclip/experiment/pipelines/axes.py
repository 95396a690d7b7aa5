"""The axes of a sweep: orders of normalisation steps, and the aggregation of replicates that are scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from morphoclip.profiling.aggregation import REDUCTIONS
from morphoclip.profiling.step import GROUP_COLUMNS, parse_step

GROUP = "group"  # key of a step's entry: of the steps of one group, at most one is in a pipeline
WELL = "well"
Order = tuple[str, ...]


@dataclass(frozen=True)
class Replicates:
    """What counts as one replicate: a well, or the consensus of a perturbation's wells within a plate, batch or source.

    Attributes:
        within: well | plate | batch | source. how: mean | median of the wells.
    """

    within: str
    how: str = "mean"

    @classmethod
    def parse(cls, name: str) -> Replicates:
        """The level named `well`, `plate_mean`, `plate_median`, `batch_mean`, …; ValueError for another name."""
        within, _, how = str(name).partition("_")
        if name == WELL:
            return cls(WELL)
        if how not in REDUCTIONS or GROUP_COLUMNS.get(within) is None:
            known = [f"{group}_{how}" for group, column in GROUP_COLUMNS.items() if column for how in REDUCTIONS]
            raise ValueError(f"sweep.replicates has {name!r}: use {WELL} or one of {', '.join(known)}")
        return cls(within, how)


@dataclass(frozen=True)
class Axes:
    """Steps and the levels at which their orders are scored.

    Attributes:
        steps: name -> mapping for `Normalizer`. groups: name -> group; by default each step is its own.
        depth: number of steps of the longest pipelines.
        replicates: names of `Replicates`.
    """

    steps: Mapping[str, Mapping[str, object]]
    groups: Mapping[str, str]
    depth: int
    replicates: tuple[str, ...] = (WELL,)

    @classmethod
    def of(cls, entries: Mapping[str, Mapping[str, object]], depth: int, replicates: Sequence[str] = (WELL,)) -> Axes:
        """The axes of a config's `sweep.steps` (name -> step and, optionally, its group), each step checked.

        Raises:
            ValueError: no depth, an unknown step, option or aggregation.
        """
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 0:
            raise ValueError(f"sweep.depth={depth!r}: give the number of steps of the longest pipelines")
        if isinstance(replicates, str):
            replicates = [replicates]
        for name in replicates:
            Replicates.parse(name)
        steps = {
            name: {key: value for key, value in entry.items() if key != GROUP}
            for name, entry in entries.items()
            if entry is not None
        }
        for name, step in steps.items():
            try:
                parse_step(step)
            except ValueError as error:
                raise ValueError(f"sweep.steps.{name}: {error}") from error
        groups = {name: str(entries[name].get(GROUP, name)) for name in steps}
        return cls(steps, groups, depth, tuple(dict.fromkeys(replicates)))

    def orders(self) -> list[Order]:
        """Every order of up to `depth` steps of different groups, depth first, so that neighbours share first steps."""
        return list(self._from(()))

    def _from(self, done: Order) -> Iterator[Order]:
        yield done
        if len(done) < self.depth:
            taken = {self.groups[name] for name in done}
            for name in self.steps:
                if self.groups[name] not in taken:
                    yield from self._from((*done, name))


def chunks(orders: Sequence[Order], size: int) -> Iterator[list[Order]]:
    """Consecutive parts of at most `size` orders."""
    remaining = iter(orders)
    while part := list(islice(remaining, size)):
        yield part


def label(order: Order) -> str:
    """The steps of a pipeline as text."""
    return " > ".join(order) or "none"
