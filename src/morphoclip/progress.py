"""Progress of long work: a bar on a terminal, occasional lines in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

SECONDS_PER_LINE = 30.0
QUIET_SECONDS = 10.0  # of a stage, before it shows
T = TypeVar("T")
_stage: ContextVar[str] = ContextVar("stage", default="")


def is_terminal() -> bool:
    """Whether stderr is a terminal rather than a log file."""
    return sys.stderr.isatty()


class Lines:
    """A file that writes each update of a bar as a separate line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        self.file.flush()


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    unit: str,
    desc: str = "",
    total: int | None = None,
    show: bool = True,
    quiet: float = 0.0,
) -> tqdm:
    """A tqdm over `items`, or over `total` steps counted by `update`; on stderr.

    Args:
        unit: unit of the count, in the singular. desc: description.
        show: False for no output. quiet: seconds before anything is shown; shorter work shows nothing.
    """
    if is_terminal():
        return tqdm(items, total=total, unit=unit, desc=desc, disable=not show, delay=quiet, leave=not quiet)
    # text only: "fields: 120/864 [00:10<01:02, 11.9field/s]"
    shape = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
    every = quiet or SECONDS_PER_LINE
    return tqdm(
        items, total=total, unit=unit, desc=desc, disable=not show, file=Lines(sys.stderr), bar_format=shape,
        mininterval=every, maxinterval=every, delay=quiet or 1e-9, leave=not quiet,
    )  # fmt: skip


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name the work of the block: loops over `counted` items in it show a bar with this name once they take long."""
    token = _stage.set(name)
    try:
        yield
    finally:
        _stage.reset(token)


def counted(items: Iterable[T], *, unit: str, total: int) -> Iterator[T]:
    """The items; after `QUIET_SECONDS` their count and the time left are shown under the name of the current `stage`.

    Outside a stage nothing is shown, so that a library function can count its items for the command that calls it.
    """
    name = _stage.get()
    yield from progress_bar(items, unit=unit, desc=name, total=total, show=bool(name), quiet=QUIET_SECONDS)
