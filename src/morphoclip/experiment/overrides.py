"""What is typed on the command line: keys that exist, and classes that replace others.

Hydra refuses an unknown key unless it is added by `+`, and keeps the keywords of a class that another one replaces.
Here a key may be what the composed config has, or an argument of what its `_target_` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict

from morphoclip import configs_dir
from morphoclip.experiment.keywords import (
    NAMED,
    TARGET,
    WrongOverride,
    accepted,
    keywords_of,
    named_object,
    nearest,
    nodes,
)

LISTED = 12  # choices of a group that an error lists in full
_KEY = re.compile(r"Could not (?:override|delete from config\.) '([^']+)'")
_CHOICE = re.compile(r"Could not find '([^']+)'")


def checked(config: DictConfig, name: str) -> list[str]:
    """Check a composed config against what it names, and remove keywords of classes that were replaced.

    Args:
        config: composed; keywords are removed from it.
        name: main config, `train` or `evaluate`.

    Returns:
        Lines for the user on keywords that were left out.

    Raises:
        WrongOverride: an unknown key, class or function, with the nearest ones.
    """
    typed = _parsed(HydraConfig.get().overrides.task)
    notes = list(_without_old_keywords(config, typed))
    if name == "train":
        notes += _without_keywords_of_other_encoders(config, typed)
    for at, node in nodes(config):
        known = accepted(named_object(str(node[TARGET]), f"{at}.{TARGET}"))
        if known is None:
            continue
        for key in map(str, node):
            if not key.startswith("_") and key not in known:
                raise unknown_key(f"{at}.{key}", known, config)
    added = [
        override for override in typed if (override.is_add() or override.is_force_add()) and not _is_group(override)
    ]
    if added:
        others = [o for o in typed if o not in added]
        before = compose(name, overrides=[str(o.input_line) for o in others])
        for override in added:
            _check_added(config, before, override)
    return notes


def explained(error: Exception, name: str, arguments: Sequence[str], folders: Sequence[Path]) -> Exception:
    """An error of Hydra's composition, with the nearest names for an unknown key or choice; others as they are."""
    text = " ".join(str(error).split())
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MissingConfigException):
        cause = cause.__cause__
    found = _CHOICE.search(text)
    if cause is not None and found:
        group, _, choice = found[1].rpartition("/")
        known = choices(group, folders)
        where = "" if any(argument.endswith(f"{group}={choice}") for argument in arguments) else " (named in a file)"
        hint = nearest(choice, known)
        hint_text = f"nearest: {', '.join(hint)}" if hint else f"choose {listed(known)}"
        return WrongOverride(f"there is no {group or 'config'} {choice!r}{where}; {hint_text}")
    wrong = _KEY.search(text)
    if wrong is None or GlobalHydra.instance().is_initialized():
        return error
    chosen = [o for o in _parsed([a for a in arguments if _is_override(a)]) if _names_group(o.key_or_group, folders)]
    own = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders[1:])}]"] if folders[1:] else []
    with initialize_config_dir(str(folders[0]), version_base="1.3"):
        config = compose(name, overrides=[*own, *(str(o.input_line) for o in chosen if o.key_or_group != wrong[1])])
    if _where_it_ends(config, wrong[1])[0] == wrong[1]:  # it exists, and Hydra refused its value
        return error
    return _not_in_config(
        wrong[1], config, {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    )


def choices(group: str, folders: Sequence[Path]) -> list[str]:
    """Names of the files of a config group."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def unknown_key(key: str, siblings: set[str], config: DictConfig) -> WrongOverride:
    """The error for a key that does not exist, with the nearest: of the same name elsewhere in the config, or beside it."""
    parent, _, leaf = key.rpartition(".")
    prefix = f"{parent}." if parent else ""
    everywhere = [name for name in _dotted(config) if not key.startswith(name)]
    close = [name for name in everywhere if name.rpartition(".")[2] == leaf]
    close += [f"{prefix}{name}" for name in nearest(leaf, siblings - {leaf})]
    close = (
        close or nearest(key, everywhere) or [f"{prefix}{name}" for name in nearest(leaf, siblings - {leaf}, 1, 0.0)]
    )
    shown = list(dict.fromkeys(close))[:3]
    hint = f"; nearest: {', '.join(shown)}" if shown else ""
    return WrongOverride(f"there is no key {key}{hint}")


def listed(names: Sequence[str]) -> str:
    """`one of a, b, …`, at most LISTED of them."""
    shown = ", ".join(names[:LISTED])
    return f"one of {shown}" + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def _parsed(lines: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(lines))


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _names_group(key: str, folders: Sequence[Path]) -> bool:
    return any((folder / key.partition("@")[0]).is_dir() for folder in folders)


def _is_group(override: Override) -> bool:
    """Whether an override chooses from a group, in the Hydra that composed the config."""
    loader = GlobalHydra.instance().config_loader()
    return bool(loader.list_groups(override.key_or_group) or loader.get_group_options(override.key_or_group))


def _typed_keys(overrides: Sequence[Override]) -> Iterator[str]:
    """Dotted keys of the values that overrides set, also of those within `key={…}`."""
    for override in overrides:
        if not override.is_delete():
            yield from _leaves(override.key_or_group, override.value())


def _leaves(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key


def _without_old_keywords(config: DictConfig, typed: Sequence[Override]) -> Iterator[str]:
    """Remove keywords that a `_target_` from the command line does not take; a line for each node."""
    keys = list(_typed_keys(typed))
    for key in keys:
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(config, parent, default=None) if leaf == TARGET else None
        if not isinstance(node, DictConfig):
            continue
        known = accepted(named_object(str(node[TARGET]), key))
        typed_here = {k.removeprefix(f"{parent}.").partition(".")[0] for k in keys if k.startswith(f"{parent}.")}
        given: Any = OmegaConf.to_container(node, resolve=False)
        old = [k for k in given if known is not None and not k.startswith("_") and k not in known | typed_here]
        if old:
            with open_dict(node):
                for k in old:
                    del node[k]
            named = ", ".join(f"{k}={given[k]}" for k in old)
            yield f"{parent}: {str(node[TARGET]).rpartition('.')[2]} does not take {named}: left out"


def _without_keywords_of_other_encoders(config: DictConfig, typed: Sequence[Override]) -> Iterator[str]:
    """Remove what a recipe or file sets for another encoder and this one does not take; a line for it."""
    if OmegaConf.is_missing(config.encoder, "name"):
        return
    known = keywords_of(config, "encoder", config.encoder)
    here = {key.split(".")[1] for key in _typed_keys(typed) if key.startswith("encoder.")}
    old = [key for key in map(str, config.encoder) if known is not None and key not in known | here]
    if old:
        named = ", ".join(f"{key}={config.encoder[key]}" for key in old)
        with open_dict(config):
            for key in old:
                del config.encoder[key]
        yield f"encoder: {config.encoder.name} does not take {named}: left out"


def _check_added(config: DictConfig, before: DictConfig, override: Override) -> None:
    """Raise WrongOverride unless a key added by `+` existed or belongs to what its node names."""
    at, node, part = _where_it_ends(before, override.key_or_group)
    if node is None or at == "hydra":
        return
    if at in NAMED:
        found = OmegaConf.select(config, f"{at}.{part}", default=None)
        if (isinstance(found, DictConfig) and TARGET in found) or (found is None and part in _parts_of_group(at)):
            return
        wrong = unknown_key(f"{at}.{part}", {*map(str, node), *_parts_of_group(at)}, before)
        raise (
            wrong
            if found is None
            else WrongOverride(f"{wrong}; a new part needs a class: +{at}.{part}={{_target_: …}}")
        )
    known = keywords_of(config, at, node)
    if known is not None and part not in known:
        raise unknown_key(f"{at}.{part}".strip("."), known | {str(key) for key in node}, before)


def _where_it_ends(config: DictConfig, key: str) -> tuple[str, DictConfig | None, str]:
    """(dotted key of a node, the node, the first part of `key` that it lacks); no node if the whole key exists."""
    node: Any = config
    at = ""
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
            return at, None, part
        if part not in node:
            return at, node, part
        node, at = node._get_node(part), f"{at}.{part}".strip(".")
    return at, None, ""


def _parts_of_group(group: str) -> set[str]:
    """Names of the parts in any file of a group such as `callbacks`."""
    files = (configs_dir() / group).glob("*.yaml")
    return {str(key) for path in files for key in OmegaConf.load(path)} - {"defaults"}


def _not_in_config(key: str, config: DictConfig, groups: set[str]) -> WrongOverride:
    """The error for a key that the composed config lacks; how to add it if what its node names takes it."""
    at, node, part = _where_it_ends(config, key)
    if node is None:
        return WrongOverride(f"there is no key {key}: {at} has no parts")
    known = keywords_of(config, at, node) or set()
    if part in known:
        what = str(node[TARGET]).rpartition(".")[2] if TARGET in node else at
        return WrongOverride(f"{key} is not in the config, but {what} takes it: add it by +{key}=…")
    return unknown_key(f"{at}.{part}".strip("."), known | {str(k) for k in node} | (set() if at else groups), config)


def _dotted(config: DictConfig) -> list[str]:
    """All dotted keys of a config."""
    return list(_leaves_of(OmegaConf.to_container(config, resolve=False), ""))


def _leaves_of(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves_of(inner, f"{key}.{name}".strip("."))
    if key:
        yield key
