"""A measure as a task: a function from sets of plates to rows, named in configs/task with its options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol


@dataclass(frozen=True)
class Measure:
    """A score other than a ranking: `function(sets, protocol, *, seed, **options)` yields Row, Detail and Note.

    Attributes:
        function: dotted path of the function.
        options: its keyword arguments.
        name: name of its file in configs/task, shown as the task.
        asked: named by the user; a measure that yields no row is then an alarm, else a note.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    asked: bool = True

    @cached_property
    def call(self) -> Callable[..., Iterator[tuple]]:
        return named(self.function)

    @property
    def caption(self) -> str:
        """The function's docstring."""
        return (self.call.__doc__ or "").strip()

    def __call__(self, sets: Sequence[PlateSet], protocol: Protocol, seed: int) -> Iterator[tuple]:
        return self.call(sets, protocol, seed=seed, **self.options)


def named(path: str) -> Any:
    """The class or function of a dotted path.

    Raises:
        ValueError: it cannot be imported.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be imported ({error}): give package.module.name, on PYTHONPATH") from error
