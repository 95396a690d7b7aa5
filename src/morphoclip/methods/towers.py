"""The perturbation side of a trained method as plain data, and its reconstruction without the run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from morphoclip import models
from morphoclip.export.weights import damaged
from morphoclip.methods.conditions import Conditions

PREFIX = "conditions."  # of the names in a method's state dict
# The classes that the config of an encoder folder may build. Functions that load other things (create_encoder) are not
# included.
PARTS = {
    "text": ("SmallTextEncoder", "HuggingFaceTextEncoder"),
    "molecule": ("MorganEncoder",),
    "molecule_graph": ("GraphEncoder",),
    "residual": ("ResidualMLP",),
    "dose": ("DoseEncoding",),
}
TARGETS = {
    f"{models.__name__}.{path}"
    for module, names in PARTS.items()
    for name in names
    for path in (name, f"{module}.{name}")
}


def describe(conditions: Conditions) -> dict[str, Any] | None:
    """`conditions` (arguments to rebuild them without weights), the towers' `files`, and the `prefix` of the weights.

    Prompts are the distinct training prompts. None if a tower or head is the user's own class, because a folder must not
    name code to run.
    """
    text, dose = conditions.spec["text"], conditions.spec["dose"]
    if any(target not in TARGETS for target in _targets([text, dose])):
        return None
    specs = dict(text).get("towers") or [{"tower": text}]
    towers = [
        {**spec, "tower": {**spec["tower"], **tower.rebuild}}
        for spec, tower in zip(specs, conditions.towers, strict=True)
    ]
    by_modality = bool(conditions.reads[0])
    arguments = {
        "prompts": [prompt for prompt, _, _ in conditions.distinct],
        "text": {"towers": towers},
        "embed_dim": conditions.spec["embed_dim"],
        "modalities": [conditions.reads[number][0] for _, number, _ in conditions.distinct] if by_modality else None,
        "doses": None if dose is None else [amount for _, _, amount in conditions.distinct],
        "dose": dose,
    }
    return {"conditions": arguments, "files": _files(conditions), "prefix": PREFIX}


def rebuild(
    arguments: Mapping[str, Any],
    state: Mapping[str, Any],
    files: str | Path | None,
    source: str | Path,
    allow: Collection[str] = (),
) -> Conditions:
    """Rebuild the conditions from the result of `describe`, in evaluation mode and without gradients.

    Args:
        state: the state dict, without prefix.
        files: folder of the towers' files; None loads them by name from the hub or their original folder.
        source: file or folder they were read from, for error messages.
        allow: `_target_`s that may be built in addition to the towers of this package.

    Raises:
        ValueError: the arguments name code that is neither a tower of this package nor allowed, or the conditions cannot
            be built or do not fit the weights.
        ImportError: a tower needs an optional dependency that is not installed.
    """
    try:
        text, dose = arguments["text"], arguments.get("dose")
        specs = text.get("towers") or [{"tower": text}]
        foreign = [target for target in _targets([specs, dose]) if target not in TARGETS and target not in allow]
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(source, error) from error
    if foreign:
        raise ValueError(
            f"{source} names {foreign[0]!r}, which is not a tower of this package and is not run. If it is your own, use "
            f"load_clip(RUN, allow=[{foreign[0]!r}]) in Python; otherwise export the run again"
        )
    try:
        towers = [
            {**spec, "tower": _without_weights(spec["tower"], files, number)} for number, spec in enumerate(specs)
        ]
        conditions = Conditions(**{**arguments, "text": {"towers": towers}})
        conditions.load_state_dict(state)
        conditions.tokenize()
    except Exception as error:  # `tokenizers` raises plain Exception for a file it cannot read
        lacking = next((e for e in (error, error.__cause__) if isinstance(e, ImportError)), None)
        if lacking is not None or (files is None and isinstance(error.__cause__ or error, OSError)):
            raise (lacking or error.__cause__ or error) from error
        raise damaged(source, error) from error
    return conditions.requires_grad_(False).eval()


def _without_weights(tower: Mapping[str, Any], files: str | Path | None, number: int) -> dict[str, Any]:
    """The settings of a tower whose weights come from a state dict and whose other files are in `files`."""
    if "name_or_path" not in tower:
        return dict(tower)
    where = {} if files is None else {"name_or_path": str(Path(files) / str(number))}
    return {**tower, **where, "pretrained": False}


def _targets(spec: Any) -> Iterator[str]:
    """Yield every `_target_` in nested settings, and every interpolation, which could hide one."""
    if isinstance(spec, Mapping):
        yield from (spec[key] for key in spec if key == "_target_")
        for value in spec.values():
            yield from _targets(value)
    elif isinstance(spec, list | tuple):
        for value in spec:
            yield from _targets(value)
    elif isinstance(spec, str) and "${" in spec:
        yield spec


def _files(conditions: Conditions) -> dict[str, bytes]:
    """`<number of the tower>/<file>` -> content."""
    with TemporaryDirectory() as made:
        for number, tower in enumerate(conditions.towers):
            tower.save_architecture(Path(made) / str(number))
        paths = sorted(path for path in Path(made).rglob("*") if path.is_file())
        return {path.relative_to(made).as_posix(): path.read_bytes() for path in paths}
