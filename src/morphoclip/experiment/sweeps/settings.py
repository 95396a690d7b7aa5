"""The settings of a study: read from YAML, checked before anything starts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from morphoclip.experiment.plain import as_dict, load_config
from morphoclip.experiment.sweeps.objective import REDUCTIONS, Objective, Score
from morphoclip.experiment.sweeps.space import Parameter, as_override, read_space
from morphoclip.training.interrupts import DURATION

NOT_IN_A_SWEEP = ("run_id", "resume", "folder", "name", "output_dir")  # each trial is a run of its own
PRUNERS = ("none", "median", "hyperband")
SAMPLERS = ("tpe", "random")
LAUNCHERS = ("local", "slurm")


@dataclass(frozen=True)
class Settings:
    """A study as described by a YAML file and the arguments of the command.

    Attributes:
        name: name of the sweep; its folder is `output_dir/name`, its trials the runs in it.
        objective: the value that is optimised.
        space: key of the training config -> the values it may take.
        overrides: what all trials have in common, as arguments of `morphoclip train`.
        sampler: `type` (tpe | random) and keywords of Optuna's sampler of this name.
        pruner: `type` (none | median | hyperband), `metric` if it watches another one than the objective's, and keywords
            of Optuna's pruner.
        n_trials: number of trials, failed and pruned ones included.
        n_jobs: number of trials at once.
        timeout: longest duration of the command, HH:MM:SS; running trials then save a checkpoint.
        launcher: `type` (local | slurm) and its resources.
        config_dir: a config folder of your own, as `--config-dir` of `morphoclip train`.
    """

    name: str
    objective: Objective
    space: dict[str, Parameter]
    overrides: list[str] = field(default_factory=list)
    sampler: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    n_trials: int = 20
    n_jobs: int = 1
    timeout: str | None = None
    launcher: dict[str, Any] = field(default_factory=dict)
    output_dir: str = "outputs"
    config_dir: str | None = None

    @property
    def folder(self) -> Path:
        return Path(self.output_dir) / self.name

    @property
    def watched(self) -> str | None:
        """The logged metric that the pruner watches; None without a pruner."""
        if self.pruner["type"] == "none":
            return None
        return self.pruner.get("metric") or self.objective.metric


KEYS = tuple(f.name for f in fields(Settings))


def find_settings(asked: str, configs: Path) -> Path:
    """The YAML file of a sweep: a path, or a name in configs/sweep.

    Raises:
        FileNotFoundError: there is none; the message has the nearest names.
    """
    inside = asked.removeprefix("configs/").removeprefix("sweep/").removesuffix(".yaml")
    for path in (Path(asked), Path(f"{asked}.yaml"), configs / "sweep" / f"{inside}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.stem for path in (configs / "sweep").glob("*.yaml"))
    near = difflib.get_close_matches(inside, known, n=3, cutoff=0.4) or known
    raise FileNotFoundError(f"there is no sweep {asked}: give a YAML file, or one of configs/sweep ({', '.join(near)})")


def read_settings(path: Path, arguments: Sequence[str] = ()) -> Settings:
    """The settings in a YAML file with the arguments of the command.

    Arguments whose first key is one of the sweep's (`n_trials=40`, `launcher.n_gpus=1`) change the sweep; all others are
    overrides of the training config, for all trials.

    Raises:
        ValueError: a key is missing, unknown or has a wrong value; the message names it and the file.
    """
    own, common = split_arguments(arguments)
    config = OmegaConf.merge(load_config(path), OmegaConf.from_dotlist(own))
    given = as_dict(config)  # type: ignore[arg-type]  # load_config has refused lists
    if not given.get("objective"):
        raise ValueError(
            f"{path} has no objective: add objective: {{metric: val/loss, direction: minimize}}, or task, subset and metric of "
            "a row of a scored run's metrics.csv"
        )
    if unknown := sorted(given.keys() - set(KEYS)):
        near = difflib.get_close_matches(unknown[0], KEYS, n=1)
        raise ValueError(
            f"{path}: unknown key {unknown[0]}{f' (nearest: {near[0]})' if near else ''}; a sweep has {', '.join(KEYS)}"
        )
    objective = read_objective(given["objective"], path)
    pruner = typed("pruner", given.get("pruner"), PRUNERS, path)
    if pruner["type"] != "none" and not (pruner.get("metric") or not isinstance(objective.what, Score)):
        raise ValueError(
            f"{path}: the objective is a score of a finished run, which a pruner cannot watch: add pruner.metric, a logged "
            "metric such as val/loss, or pruner: none"
        )
    if not given.get("space"):
        raise ValueError(
            f"{path} has no space: add space: {{optimizer.lr: {{type: float, low: 1e-4, high: 1e-2, log: true}}}}"
        )
    space = read_space(given["space"], path)
    overrides = [*_lines(given.get("overrides"), path), *common]
    for key in {override.partition("=")[0].lstrip("+~") for override in overrides} & {*NOT_IN_A_SWEEP, *space}:
        why = (
            "the search space varies it"
            if key in space
            else "trials are the runs output_dir/name/trial-<number> of the sweep"
        )
        raise ValueError(f"{path}: {key} cannot be one of the overrides: {why}")
    name = str(given.get("name") or path.stem)
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(f"{path}: name={name!r}: use letters, digits and . _ + -")
    return Settings(
        name=name,
        objective=objective,
        space=space,
        overrides=overrides,
        sampler=typed("sampler", given.get("sampler"), SAMPLERS, path, default="tpe"),
        pruner=pruner,
        n_trials=_count(given, "n_trials", 20, path),
        n_jobs=_count(given, "n_jobs", 1, path),
        timeout=_duration(given.get("timeout"), path),
        launcher=typed("launcher", given.get("launcher"), LAUNCHERS, path, default="local"),
        output_dir=str(given.get("output_dir") or "outputs"),
        config_dir=None if given.get("config_dir") is None else str(given["config_dir"]),
    )


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(arguments that change the sweep, overrides of the training config).

    Raises:
        ValueError: an argument is no key=value.
    """
    own: list[str] = []
    common: list[str] = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals and not argument.startswith("~"):
            raise ValueError(f"{argument!r} is no key=value: give n_trials=40, or an override of `morphoclip train`")
        (own if key.split(".")[0] in KEYS else common).append(argument)
    return own, common


def read_objective(given: Any, path: Path) -> Objective:
    """The objective described by `metric`, `direction`, and `reduce` or `task` and `subset`."""
    if not isinstance(given, Mapping) or not given.get("metric"):
        raise ValueError(f"{path}: objective needs a metric: {{metric: val/loss, direction: minimize}}")
    known = {"metric", "direction", "reduce", "k", "task", "subset"}
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"{path}: unknown key objective.{unknown[0]}; it has {', '.join(sorted(known))}")
    direction, reduce = given.get("direction"), given.get("reduce", "last")
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"{path}: objective.direction={direction}: give minimize or maximize")
    if reduce not in REDUCTIONS:
        raise ValueError(f"{path}: objective.reduce={reduce}: give one of {', '.join(REDUCTIONS)}")
    what: str | Score = str(given["metric"])
    if given.get("task"):
        what = Score(str(given["task"]), str(given["metric"]), given.get("subset"))
    return Objective(what, direction == "maximize", reduce, int(given.get("k", 5)))


def typed(key: str, given: Any, types: Sequence[str], path: Path, default: str = "none") -> dict[str, Any]:
    """A setting given as a type, or as `type` with further keywords."""
    found = dict(given) if isinstance(given, Mapping) else {"type": given}
    found["type"] = str(found.get("type") or default)
    if found["type"] not in types:
        raise ValueError(f"{path}: {key}.type={found['type']}: give one of {', '.join(types)}")
    return found


def _lines(given: Any, path: Path) -> list[str]:
    """Overrides given as a list of key=value, or as key: value entries."""
    if isinstance(given, Mapping):
        return [as_override(str(key), value) for key, value in given.items()]
    if given is not None and not isinstance(given, list):
        raise ValueError(f"{path}: overrides are key: value entries, or a list of key=value")
    return [str(line) for line in given or []]


def _duration(given: Any, path: Path) -> str | None:
    """HH:MM:SS; YAML reads 12:00:00 without quotes as a number of seconds."""
    if isinstance(given, int):
        given = f"{given // 3600:02d}:{given // 60 % 60:02d}:{given % 60:02d}"
    if given is not None and not DURATION.fullmatch(str(given)):
        raise ValueError(f"{path}: timeout={given}: give HH:MM:SS or DD:HH:MM:SS")
    return None if given is None else str(given)


def _count(given: Mapping[str, Any], key: str, default: int, path: Path) -> int:
    value = given.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path}: {key}={value}: give a number of at least 1")
    return value
