"""The keys that a node of a config may have: arguments of what it names, or those that code reads."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, ListConfig

TARGET = "_target_"
NAMED = ("callbacks", "logger", "score.encoders")  # nodes of named parts, each with a `_target_`
# Keys that code reads where they are given, besides those of the config.
OPTIONAL = {
    "": {"rotation"},
    "data": {"enrich", "features", "folder", "holdout", "lede", "prepare", "screen", "table", "truth"},
    "perturbation": {"compound", "crispr", "orf"},
}
CLOSED = (
    "",
    "data",
    "init",
    "perturbation",
    "rotation",
    "score",
    "text",
    "data.features",
    "data.table",
)  # with the parts of `method`


class WrongOverride(ValueError):
    """Something typed on the command line, or named in a config, that does not exist."""


def nodes(node: Any, at: str = "") -> Iterator[tuple[str, DictConfig]]:
    """(dotted key, node) of every node with a `_target_`, from this one down; references are not followed."""
    if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing() and not node._is_interpolation():
        if TARGET in node:
            yield at, node
        for key in map(str, node):
            yield from nodes(node._get_node(key), f"{at}.{key}".strip("."))
    elif isinstance(node, ListConfig) and not node._is_none() and not node._is_missing():
        for number in range(len(node)):
            yield from nodes(node._get_node(number), f"{at}.{number}")


def nearest(asked: str, known: Collection[str], count: int = 3, cutoff: float = 0.55) -> list[str]:
    """Up to `count` of the known names that resemble the one asked for by at least `cutoff`, the most similar first."""
    return difflib.get_close_matches(asked, sorted(known), n=count, cutoff=cutoff)


def named_object(path: str, at: str) -> Callable[..., Any]:
    """The class or function of a dotted path, the value of `at`.

    Raises:
        WrongOverride: it cannot be imported; the message has the nearest names of its module.
    """
    module, _, name = path.rpartition(".")
    try:
        found = import_module(module)
    except ValueError as error:
        raise WrongOverride(f"{at}={path}: give package.module.Name") from error
    except ImportError as error:
        outer, _, inner = module.rpartition(".")  # a method of a class
        holder = getattr(sys.modules.get(outer), inner, None) if outer else None
        if holder is None or not hasattr(holder, name):
            raise WrongOverride(f"{at}={path} cannot be imported: {error}") from error
        return getattr(holder, name)
    try:
        return getattr(found, name)
    except (AttributeError, ImportError) as error:
        close = nearest(name, [known for known in dir(found) if not known.startswith("_")])
        hint = f"; nearest: {', '.join(close)}" if close else ""
        raise WrongOverride(f"{at}={path}: {module} has no {name}{hint}") from error


def accepted(target: Callable[..., Any]) -> set[str] | None:
    """Keywords that a class or function takes; None if it takes any.

    A class of ours that passes `**options` on takes those of its bases too.
    """
    if not inspect.isclass(target):
        return _named(inspect.signature(target))
    known: set[str] = set()
    for cls in inspect.getmro(target):
        if "__init__" not in vars(cls):
            continue
        signature = inspect.signature(cls)
        own = {name for name, p in signature.parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        known |= own
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            return known
        if not cls.__module__.startswith("morphoclip."):
            return None
    return known


def _named(signature: inspect.Signature) -> set[str] | None:
    parameters = signature.parameters.values()
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters) else set(signature.parameters)


def keywords_of(config: DictConfig, at: str, node: DictConfig) -> set[str] | None:
    """Keys that the node at a dotted key may have; None for any."""
    if TARGET in node:
        return accepted(named_object(str(node[TARGET]), f"{at}.{TARGET}"))
    if at in ("encoder", "data.features.encoder"):
        return _lazily("morphoclip.models.keywords", "encoder_keywords")(str(node.get("name")))
    if at == "data.prepare":
        return accepted(_lazily("morphoclip.preparation", "prepare_dataset"))
    if at == "data.holdout":
        return accepted(_lazily("morphoclip.data", "holdout"))
    if at == "data.loader.sampler_options":
        samplers = import_module("morphoclip.data.loading.datamodule").SAMPLERS
        chosen = samplers.get(config.data.loader.get("sampler"))
        return None if chosen is None else accepted(chosen)
    if at in CLOSED or at.startswith("method."):
        return {str(key) for key in node} | OPTIONAL.get(at, set())
    return None


def _lazily(module: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(module), name)
