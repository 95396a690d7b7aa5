"""Arguments as typed ▶ arguments in Hydra's terms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from morphoclip.experiment.keywords import NAMED, TARGET, WrongOverride
from morphoclip.experiment.overrides import choices, listed


def as_hydra_reads(name: str, arguments: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Arguments in Hydra's terms: `--dry-run` as `dry_run=true`, a group or part set to null as switched off.

    `columns.<ours>=`, `control=` and `features=` of `evaluate` take names of a user's table, with any characters.

    Args:
        name: main config, `train` or `evaluate`.
        arguments: as typed.
        folders: of configs.

    Raises:
        WrongOverride: a group that cannot be switched off, or a column of ours that does not exist.
    """
    read = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if name == "evaluate" and key.startswith(("columns.", "+columns.", "++columns.")):
            read.append(f"++{_column_key(key)}={_as_name(value)}")
        elif name == "evaluate" and key in ("control", "features"):
            read.append(f"{key}={_as_name(value)}")
        elif name == "train" and argument == "--dry-run":
            read.append("dry_run=true")
        elif re.match(r"(score\.)?task\.\w+\.", key):
            read.append(f"++{argument}")  # a field of a task, checked where tasks are read
        elif name == "train" and key.startswith("data.table.columns."):
            read.append(f"++{argument}")  # a name of ours that the config does not list
        elif "." in key and TARGET in value and value.startswith("{") and not key.startswith(("+", "~")):
            read.append(f"++{argument}")  # with keywords that the class before did not have
        elif value != "null" or not re.fullmatch(r"\w+(\.\w+)?", key):
            read.append(argument)
        elif "." in key:
            part = key.partition(".")[0]
            read.append(f"++{argument}" if part in NAMED else argument)
        elif not any((folder / key).is_dir() for folder in folders):
            read.append(argument)
        elif name == "train":
            if not any((folder / key / "none.yaml").is_file() for folder in folders):
                raise WrongOverride(f"{argument}: {key} cannot be left out; choose {listed(choices(key, folders))}")
            read.append(f"{key}=none")
        # else null is the default of an optional group
    return read


def _column_key(key: str) -> str:
    """`columns.<ours>` without a plus, if there is such a column of ours."""
    from morphoclip.profiling.reading.columns import canonical_mapping

    key = key.lstrip("+")
    try:
        canonical_mapping({key.partition(".")[2]: ""})
    except ValueError as error:
        raise WrongOverride(str(error)) from error
    return key


def _as_name(value: str) -> str:
    """A value in quotes, unless it is a list, a mapping, null or has quotes already."""
    if value == "null" or value.startswith(("[", "{", "'", '"')):
        return value
    return "'" + value.replace("'", r"\'") + "'"
