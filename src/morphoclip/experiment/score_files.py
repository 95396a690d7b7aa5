"""The files of one scoring replace those of the scoring before in the same folder, all or none."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morphoclip.files import remove, write_atomically

RECORD = "scores.json"  # names of the files that a scoring wrote
_PARTIAL = ".scores.partial-"


@contextmanager
def replacing_scores(folder: Path) -> Iterator[Path]:
    """A working folder inside `folder`; its files get their names in `folder` if the block ends without an error.

    Files that an earlier scoring wrote there and this one did not are removed: the table of a task that is no longer
    scored does not stand beside newer ones. Other files in `folder` stay. After an error all is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_PARTIAL) as working:
        yield Path(working)
        written = sorted(path.name for path in Path(working).iterdir())
        before = written_before(folder)
        with write_atomically(folder / RECORD) as partial:  # both: a crash in between leaves no file unrecorded
            partial.write_text(json.dumps(sorted({*before, *written}), indent=2) + "\n")
        for name in written:
            os.replace(Path(working) / name, folder / name)
        for name in set(before) - set(written):
            remove(folder / name)
        with write_atomically(folder / RECORD) as partial:
            partial.write_text(json.dumps(written, indent=2) + "\n")


def written_before(folder: Path) -> list[str]:
    """Names of the files in `folder` that the last scoring wrote."""
    path = folder / RECORD
    return json.loads(path.read_text()) if path.is_file() else []
