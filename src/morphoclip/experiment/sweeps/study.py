"""The Optuna study of a sweep: its sqlite file, what is asked of it and what it is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from morphoclip.experiment.sweeps.settings import Settings

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"
SETTINGS, REASON = "settings", "reason"  # attributes of the study and of its trials


@dataclass(frozen=True)
class Trial:
    """A trial: its number in the study, and its value of each key of the search space."""

    number: int
    parameters: dict[str, Any]

    @property
    def run_id(self) -> str:
        return f"trial-{self.number}"


class Study:
    """A study that goes on where it was left; only one process may have it open.

    Args:
        settings: of the sweep.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: the sweep's folder has a study of another objective, search space or overrides, or a sampler or pruner
            was given keywords that Optuna does not know.
    """

    def __init__(self, settings: Settings) -> None:
        optuna = import_optuna()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # the sweep prints a line a trial itself
        self.settings = settings
        settings.folder.mkdir(parents=True, exist_ok=True)
        self._optuna = optuna
        self.study = optuna.create_study(
            study_name=settings.name,
            storage=f"sqlite:///{(settings.folder / DATABASE).absolute()}",
            direction="maximize" if settings.objective.maximize else "minimize",
            sampler=_sampler(settings.sampler, 0),
            pruner=_pruner(settings.pruner),
            load_if_exists=True,
        )
        self._check_settings()
        self._reported = {trial.number: set(trial.intermediate_values) for trial in self.trials}

    def _check_settings(self) -> None:
        """Refuse to go on with a study whose trials could not be compared with the next ones."""
        now = comparable(self.settings)
        before = self.study.user_attrs.get(SETTINGS)
        if before is None:
            self.study.set_user_attr(SETTINGS, now)
        elif before != now:
            changed = [key for key in now if before.get(key) != now[key]]
            raise ValueError(
                f"{self.settings.folder} has a study with another {' and '.join(changed)} ({changed[0]}: "
                f"{json.dumps(before.get(changed[0]))} -> {json.dumps(now[changed[0]])}): give the sweep another name="
            )

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def unfinished(self) -> list[Trial]:
        """The trials that were running when the sweep ended, with values for what was not drawn yet."""
        running = [trial for trial in self.trials if trial.state == self._optuna.trial.TrialState.RUNNING]
        return [self._drawn(self._optuna.trial.Trial(self.study, trial._trial_id)) for trial in running]

    def ask(self) -> Trial:
        """A new trial; what it draws depends on its number and the trials before, not on when the sweep was started."""
        self.study.sampler = _sampler(self.settings.sampler, len(self.trials))
        return self._drawn(self.study.ask())

    def _drawn(self, trial: optuna.trial.Trial) -> Trial:
        drawn = {key: parameter.suggest(trial, key) for key, parameter in self.settings.space.items()}
        self._reported.setdefault(trial.number, set())
        return Trial(trial.number, drawn)

    def report(self, number: int, values: list[tuple[int, float]]) -> bool:
        """Give the values by step that are new to the study; returns whether to end the trial."""
        trial = self._optuna.trial.Trial(self.study, self.trials[number]._trial_id)
        new = [(step, value) for step, value in values if step not in self._reported[number]]
        for step, value in new:
            trial.report(value, step)
            self._reported[number].add(step)
            if trial.should_prune():
                return True
        return False

    def finish(self, number: int, value: float) -> None:
        """Record the objective of a finished trial."""
        self.study.tell(number, value)

    def prune(self, number: int) -> None:
        """Record that a trial was ended."""
        self.study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Record that a trial has failed, and why."""
        self.study._storage.set_trial_user_attr(self.trials[number]._trial_id, REASON, reason)
        self.study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def counts(self) -> Counter[str]:
        """State in lower case -> number of trials: complete, pruned, fail, running."""
        return Counter(trial.state.name.lower() for trial in self.trials)

    def best(self) -> int | None:
        """Number of the best trial; None if none is complete."""
        complete = {trial.number: trial.value for trial in self.trials if trial.state.name == "COMPLETE"}
        return self.settings.objective.best({n: float(v) for n, v in complete.items() if v is not None})

    def importance(self) -> dict[str, float]:
        """Key -> its share of the variance of the objective (fANOVA); empty with too few trials."""
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        complete = [trial.value for trial in self.trials if trial.state.name == "COMPLETE"]
        if len(complete) < 4 or len(set(complete)) < 2:
            return {}
        return get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0))


def comparable(settings: Settings) -> dict[str, Any]:
    """What must stay the same while a study goes on, as JSON would return it."""
    objective = settings.objective
    kept = {
        "objective": [str(objective), "maximize" if objective.maximize else "minimize"],
        "space": {key: vars(parameter) for key, parameter in settings.space.items()},
        "overrides": settings.overrides,
    }
    return json.loads(json.dumps(kept, default=str))


def import_optuna() -> Any:
    """The module.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError("a sweep needs Optuna: pip install 'morphoclip[sweep]'") from error
    return optuna


def _sampler(given: Mapping[str, Any], number: int) -> Any:
    samplers = import_optuna().samplers
    kinds = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler}
    seed = np.random.SeedSequence([int(given.get("seed") or 0), number]).generate_state(1)[0]
    return _made("sampler", kinds[given["type"]], {**given, "seed": int(seed)})


def _pruner(given: Mapping[str, Any]) -> Any:
    pruners = import_optuna().pruners
    kinds = {"none": pruners.NopPruner, "median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner}
    return _made("pruner", kinds[given["type"]], {key: value for key, value in given.items() if key != "metric"})


def _made(what: str, make: Any, given: Mapping[str, Any]) -> Any:
    try:
        return make(**{key: value for key, value in given.items() if key != "type"})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}; its keywords are those of Optuna's {make.__name__}") from error
