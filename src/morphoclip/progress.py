"""Progress of long work: a bar on a terminal, a line every so often in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_PER_LINE = 30.0


def is_terminal() -> bool:
    """Whether somebody watches stderr, rather than a log file keeping it."""
    return sys.stderr.isatty()


class Lines:
    """A file that takes a bar's updates as lines of their own."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        self.file.flush()


def progress_bar(
    items: Iterable[Any] | None = None, *, unit: str, desc: str = "", total: int | None = None, show: bool = True
) -> tqdm:
    """A tqdm over `items`, or of `total` steps that `update` counts; on stderr.

    Args:
        unit: what is counted, in the singular. desc: what is done to it.
        show: False shows nothing.
    """
    if is_terminal():
        return tqdm(items, total=total, unit=unit, desc=desc, disable=not show)
    # a plain bar of no width: "fields: 120/864 [00:10<01:02, 11.9field/s]"
    shape = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
    return tqdm(
        items, total=total, unit=unit, desc=desc, disable=not show, file=Lines(sys.stderr), bar_format=shape,
        mininterval=SECONDS_PER_LINE, maxinterval=SECONDS_PER_LINE, delay=1e-9,
    )  # fmt: skip
