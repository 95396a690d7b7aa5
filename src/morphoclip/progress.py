"""Progress of long work: a bar on a terminal, occasional lines in a log file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_PER_LINE = 30.0


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
    items: Iterable[Any] | None = None, *, unit: str, desc: str = "", total: int | None = None, show: bool = True
) -> tqdm:
    """A tqdm over `items`, or over `total` steps counted by `update`; on stderr.

    Args:
        unit: unit of the count, in the singular. desc: description.
        show: False for no output.
    """
    if is_terminal():
        return tqdm(items, total=total, unit=unit, desc=desc, disable=not show)
    # text only: "fields: 120/864 [00:10<01:02, 11.9field/s]"
    shape = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
    return tqdm(
        items, total=total, unit=unit, desc=desc, disable=not show, file=Lines(sys.stderr), bar_format=shape,
        mininterval=SECONDS_PER_LINE, maxinterval=SECONDS_PER_LINE, delay=1e-9,
    )  # fmt: skip
