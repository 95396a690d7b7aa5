"""The record of a sweep on disk: a line per finished pipeline and set, so that a killed sweep goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from morphoclip.files import write_atomically

RECORD = "sweep.jsonl"  # the first line: what is swept; then a line per order of steps and set
Line = dict[str, Any]
Key = tuple[tuple[str, ...], tuple[str, ...]]  # set, order


class Record:
    """Lines appended as they come; each call of `add` is on disk when it returns.

    Args:
        path: the file. about: what determines the results; a record of something else is refused.
        restart: remove what an earlier sweep has recorded there.

    Attributes:
        lines: by set and order, those of an earlier start included.

    Raises:
        ValueError: the file is the record of another sweep; the message says what differs.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], restart: bool = False) -> None:
        self.path, self.about = path, json.loads(json.dumps(about))
        self.lines: dict[Key, Line] = {}
        if restart:
            path.unlink(missing_ok=True)
        if path.is_file():
            self._read()
        else:
            self._write_anew()

    def add(self, lines: Iterable[Line]) -> None:
        """Append lines."""
        lines = list(lines)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(_text(line) for line in lines)
        self.lines |= {key_of(line): line for line in lines}

    def close(self, order: Sequence[Key]) -> None:
        """Write the lines in this order, so that the file does not depend on which process was first."""
        self.lines = {key: self.lines[key] for key in order}
        self._write_anew()

    def _write_anew(self) -> None:
        with write_atomically(self.path) as partial:
            partial.write_text("".join(map(_text, [self.about, *self.lines.values()])), encoding="utf-8")

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1].splitlines()  # a killed process can leave half a line
        before, *lines = map(json.loads, whole) if whole else [{}]
        if before != self.about and not lines:  # it had not begun
            self._write_anew()
            return
        if before != self.about:
            changed = [key for key in (before | self.about) if before.get(key) != self.about.get(key)]
            raise ValueError(
                f"{self.path} is the record of another sweep (other {', '.join(changed)}): give another output_dir=, or "
                "sweep.restart=true to replace it"
            )
        self.lines = {key_of(line): line for line in lines}
        if len(text) > sum(len(line) + 1 for line in whole):
            self._write_anew()


def key_of(line: Line) -> Key:
    return tuple(line["set"]), tuple(line["order"])


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, allow_nan=True) + "\n"
