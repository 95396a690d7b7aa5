"""The search space of a study: ranges and choices of keys of the training config, and overrides that set them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

RANGE = {"type", "low", "high", "log", "step"}


@dataclass(frozen=True)
class Parameter:
    """The values a key may take: a range of float or int, or choices.

    Attributes:
        kind: "float", "int" or "choices".
        low, high: ends of a range, both included.
        log: draw the logarithm uniformly.
        step: distance of neighbouring values of a range; None for any float, or 1 for int.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """A value for a trial, the same again if the trial already has one."""
        if self.kind == "choices":
            return trial.suggest_categorical(key, self.choices)
        if self.kind == "int":
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    @property
    def first(self) -> Any:
        """One of its values, to check the config with."""
        return self.choices[0] if self.choices else int(self.low) if self.kind == "int" else self.low


def read_space(given: Any, path: Path) -> dict[str, Parameter]:
    """The search space described by {key: {type, low, high, log, step}} or {key: {choices}}.

    Raises:
        ValueError: a range or choices that cannot be drawn from; the message names the key.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{path}: space holds key: {{type: float, low: …, high: …}} entries")
    return {str(key): _parameter(f"{path}: space.{key}", entry) for key, entry in given.items()}


def _parameter(where: str, given: Any) -> Parameter:
    if isinstance(given, list):
        given = {"choices": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}: give {{type: float, low: …, high: …}} or {{choices: […]}}")
    if "choices" in given:
        choices = tuple(c if isinstance(c, str | int | float | None) else as_text(c) for c in given["choices"] or ())
        if len(set(choices)) < 2 or set(given) != {"choices"}:
            raise ValueError(f"{where}: choices need at least two values, and no other key")
        return Parameter("choices", choices=choices)
    if unknown := sorted(set(given) - RANGE):
        raise ValueError(f"{where}: unknown key {unknown[0]}; a range has {', '.join(sorted(RANGE))}")
    kind = given.get("type")
    low: Any = given.get("low")
    high: Any = given.get("high")
    if kind not in ("float", "int"):
        raise ValueError(f"{where}: type={kind}: give float or int, or choices: […]")
    numbers = [value for value in (low, high, given.get("step", 1)) if _is_number(value, kind)]
    if len(numbers) < 3 or not low < high:
        raise ValueError(f"{where}: low={low}, high={high}: give two numbers of this type, the lower first")
    log, step = bool(given.get("log", False)), given.get("step")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"{where}: log: true needs low above 0, and no step")
    return Parameter(kind, low, high, log, step)


def _is_number(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return kind == "float" or isinstance(value, int)


def as_override(key: str, value: Any) -> str:
    """`key=value` as an argument of `morphoclip train`."""
    return f"{key}={as_text(value)}"


def as_text(value: Any) -> str:
    """A value in the grammar of Hydra's overrides; text stays as it is."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(as_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{as_text(item)}' for key, item in value.items())}}}"
    return repr(value) if isinstance(value, float) else str(value)
