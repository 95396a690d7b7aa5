"""Tasks by name: files `task/NAME.yaml` of the config folders ▶ Task and Measure objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from morphoclip import configs_dir
from morphoclip.evaluation.tasks.measure import Measure, named
from morphoclip.evaluation.tasks.protocol import Protocol
from morphoclip.evaluation.tasks.task import CONTROLLED, REPLICATE, Task

DEFAULT = (REPLICATE, "sister", "compound_gene")
Names = str | Task | Measure | Sequence[str | Task | Measure]


def chosen_tasks(
    tasks: Names | None,
    protocol: Protocol,
    *,
    negatives: str | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    keys: Mapping[str, Any] | None = None,
    folders: Sequence[Path] = (),
) -> list[Task | Measure]:
    """The tasks to score: `replicate` first, since others score what it retrieves, then the others as listed.

    Args:
        tasks: names or objects; None: those of the protocol, else DEFAULT, none of which has to be possible.
        negatives: replaces those of the tasks that rank against negative controls.
        changes: name of a task -> its fields to replace.
        keys: what `${…}` in a task's file may name, e.g. the keys of configs/evaluate.yaml.
        folders: config folders to look in before ours.

    Raises:
        ValueError: an unknown task, field or value, or a change to a task that is not scored.
    """
    listed = list(protocol.tasks or DEFAULT) if tasks is None else tasks
    listed = [listed] if isinstance(listed, str | Task | Measure) else list(listed)
    found = [read_task(one, keys, folders) if isinstance(one, str) else one for one in listed]
    if not any(one.name == REPLICATE for one in found):
        found = [replace(read_task(REPLICATE, keys, folders), asked=False), *found]
    found.sort(key=lambda one: one.name != REPLICATE)
    if negatives is not None:
        found = [
            replace(one, negatives=negatives) if isinstance(one, Task) and one.negatives in CONTROLLED else one
            for one in found
        ]
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"tasks {twice} are listed twice")
    for name, fields in (changes or {}).items():
        if name not in names:
            raise ValueError(f"task.{name} is changed but not scored: the tasks are {names}")
        found[names.index(name)] = _changed(found[names.index(name)], fields)
    return [replace(one, asked=one.asked and tasks is not None) for one in found]


def read_task(name: str, keys: Mapping[str, Any] | None = None, folders: Sequence[Path] = ()) -> Task | Measure:
    """The task in `task/NAME.yaml` of the first folder that has it.

    Raises:
        ValueError: no folder has it, or the file does not describe a task.
    """
    from omegaconf import OmegaConf

    places = [Path(folder) / "task" for folder in [*folders, configs_dir()]]
    path = next((place / f"{name}.yaml" for place in places if (place / f"{name}.yaml").is_file()), None)
    if path is None:
        known = sorted({file.stem for place in places for file in place.glob("*.yaml")})
        near = get_close_matches(name, known, n=1)
        hint = f"; nearest: {near[0]}" if near else ""
        raise ValueError(
            f"tasks {[name]} are unknown: choose among {known}, or give --config-dir with task/{name}.yaml{hint}"
        )
    root = OmegaConf.create({**(keys or {}), "_task": OmegaConf.load(path)})
    fields: Any = OmegaConf.to_container(root["_task"], resolve=True)
    if not isinstance(fields, dict) or "_target_" not in fields:
        raise ValueError(f"{path} has no _target_: give morphoclip.evaluation.Task or morphoclip.evaluation.Measure")
    target = named(fields.pop("_target_"))
    try:
        return target(**{"name": name, **fields})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _changed(task: Task | Measure, fields: Mapping[str, Any]) -> Task | Measure:
    try:
        return replace(task, **fields)
    except TypeError as error:
        known = sorted(set(task.__dataclass_fields__) - {"name", "asked"})
        raise ValueError(f"task.{task.name}: {sorted(fields)} has an unknown field: choose among {known}") from error
