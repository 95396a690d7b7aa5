"""What an encoder folder records of its files and of the scores of its run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from morphoclip.export.layout import CARD, CONFIG, FILES
from morphoclip.export.weights import read_settings
from morphoclip.files import sha256_of_file

SCORES = "arms.csv"  # a scored run's table: a row an arm and task, with controls


def hashes_of(folder: Path) -> dict[str, str]:
    """sha256 of every file of a folder but its config and card, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    return {name: sha256_of_file(folder / name) for name in names if name not in (CONFIG, CARD)}


def check_files(folder: str | Path) -> list[str]:
    """The names of an encoder folder's files, after comparing each with its hash.

    Raises:
        FileNotFoundError: the folder has no config.json.
        ValueError: a file is missing, differs from its hash, or is not recorded in config.json.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: make an encoder folder with `morphoclip export`")
    known, found = read_settings(folder / CONFIG).get(FILES), hashes_of(folder)
    if known is None:
        raise ValueError(f"{folder} was written before the hashes of files were recorded: export it again")
    for name in sorted(known.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"{folder / name} is missing, though {CONFIG} lists it: export the encoder again")
        if name not in known:
            raise ValueError(f"{folder / name} is not part of the export, by {CONFIG}: move it elsewhere")
        if known[name] != found[name]:
            raise ValueError(f"{folder / name} differs from its hash in {CONFIG}: export the encoder again")
    return [CONFIG, *([CARD] if (folder / CARD).is_file() else []), *sorted(found)]


def inherited_facts(source: Path) -> dict[str, Any]:
    """`scores` of the scored run that a run folder, a checkpoint or an encoder folder belongs to, and its licence."""
    if source.is_file():  # RUN/checkpoints/last.ckpt
        return _scores(source.parent.parent)
    if (source / CONFIG).is_file():
        known = read_settings(source / CONFIG)
        facts = {key: known[key] for key in ("scores", "license") if key in known}
        return (_scores(source.parent) if source.name == "encoder" else {}) | facts
    return _scores(source)


def _scores(run: Path) -> dict[str, Any]:
    path = run / SCORES
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {"scores": list(csv.DictReader(file))}
