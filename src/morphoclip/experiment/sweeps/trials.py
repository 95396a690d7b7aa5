"""A trial as a run of `morphoclip train`: its overrides, and the interface of what starts it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from morphoclip import configs_dir
from morphoclip.experiment.sweeps.objective import curves_of
from morphoclip.experiment.sweeps.page import shown
from morphoclip.experiment.sweeps.settings import Settings
from morphoclip.experiment.sweeps.space import as_override
from morphoclip.experiment.sweeps.study import Trial


class Running(Protocol):
    """A started trial: `processes.Process` or `jobs.Job`."""

    def has_ended(self) -> bool: ...
    def how(self) -> str: ...
    def interrupt(self) -> None: ...
    def kill(self) -> None: ...


class Launcher(Protocol):
    """Starts trials: `processes.Processes` or `jobs.Jobs`."""

    poll_s: float
    runs_on_alone: bool

    def start(self, arguments: Sequence[str], folder: Path) -> Any: ...
    def taken_up(self, folder: Path) -> Any: ...
    def output(self, folder: Path) -> Path | None: ...


def check_config(settings: Settings) -> None:
    """Compose the training config with a value of each key of the search space, and with each choice of a config group.

    Raises:
        HydraException: it cannot be composed.
    """
    from hydra import compose, initialize_config_dir

    own = [f"hydra.searchpath=[file://{Path(settings.config_dir).absolute()}]"] if settings.config_dir else []
    first = {key: parameter.first for key, parameter in settings.space.items()}
    groups = {key: parameter.choices for key, parameter in settings.space.items() if "." not in key}
    others = [first | {key: choice} for key, choices in groups.items() for choice in choices[1:]]
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        for parameters in [first, *others]:
            compose("train", overrides=[*own, *overrides_of(settings, Trial(0, parameters))])


def overrides_of(settings: Settings, trial: Trial) -> list[str]:
    """The overrides of a trial's training."""
    output_dir = settings.output_dir
    if not re.fullmatch(r"[\w./-]+", output_dir):
        output_dir = f"'{output_dir}'"
    own = [as_override(key, value) for key, value in trial.parameters.items()]
    return [*settings.overrides, *own, f"name='{settings.name}'", f"run_id={trial.run_id}", f"output_dir={output_dir}"]


def described(parameters: dict[str, Any]) -> str:
    """The values of a trial, for a line of output."""
    return ", ".join(f"{key}={shown(value)}" for key, value in parameters.items())


def last_step(folder: Path) -> int:
    """The last optimizer step in a run's curves."""
    rows = curves_of(folder)
    return int(rows[-1]["step"]) if rows else 0
