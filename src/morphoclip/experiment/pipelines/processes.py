"""Orders of steps scored in several processes, each on one core."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from morphoclip.experiment.pipelines.axes import Axes, Order
from morphoclip.experiment.pipelines.tables import WellSet
from morphoclip.experiment.pipelines.walk import Walk
from morphoclip.experiment.sweeps.processes import end_with_parent

Task = tuple[int, list[Order]]  # number of the set, orders
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def scored(
    sets: Sequence[WellSet], axes: Axes, tasks: Sequence[Task], processes: int
) -> Iterator[list[dict[str, Any]]]:
    """The results of each task as they come.

    Args:
        sets: wells that tasks name by their number. tasks: neighbours share first steps.
        processes: 1 for this process alone.
    """
    if processes < 2:
        walker = _Walker(lambda number: sets[number], axes)
        for task in tasks:
            yield walker.results(*task)
        return
    with tempfile.TemporaryDirectory(prefix="morphoclip-sweep-") as name, _one_thread_each():
        for number, wells in enumerate(sets):
            Path(name, str(number)).write_bytes(pickle.dumps(wells, protocol=5))
        context = multiprocessing.get_context("spawn")  # BLAS and torch have threads, which a fork would not have
        pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(Path(name), axes))
        try:
            for done in as_completed([pool.submit(_results, *task) for task in tasks]):
                yield done.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"one of the {processes} processes of the sweep was killed, perhaps for lack of memory: the same command with "
                "fewer sweep.processes goes on where it was"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


class _Walker:
    """Keeps the walk of the last set."""

    def __init__(self, load, axes: Axes) -> None:
        self.load, self.axes = load, axes
        self.number: int | None = None
        self.walk: Walk | None = None

    def results(self, number: int, orders: list[Order]) -> list[dict[str, Any]]:
        if self.walk is None or self.number != number:
            self.number, self.walk = number, Walk(self.load(number), self.axes)
        return list(self.walk.results(orders))


_walker: _Walker | None = None  # of this process


def _begin(folder: Path, axes: Axes) -> None:
    global _walker
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the sweep's own process, which ends these
    _walker = _Walker(lambda number: pickle.loads((folder / str(number)).read_bytes()), axes)


def _results(number: int, orders: list[Order]) -> list[dict[str, Any]]:
    assert _walker is not None
    return _walker.results(number, orders)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Child processes that start here use one thread for linear algebra."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
