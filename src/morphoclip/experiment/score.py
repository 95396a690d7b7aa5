"""Arms × design ▶ score cards: profiles are normalised, cross-fitted and scored here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from morphoclip import configs_dir, schema
from morphoclip.evaluation import Measure, Protocol, ScoreCard, Task, score
from morphoclip.evaluation.card.alarms import shuffled_labels
from morphoclip.evaluation.tasks.library import chosen_tasks
from morphoclip.evaluation.tasks.protocol import plate_sets
from morphoclip.experiment.design import FOLD, PROFILED, QUERY, SCORED, TRAINED, Design
from morphoclip.experiment.plain import as_dict, load_config
from morphoclip.profiling import Normalizer, crossfit, negcon_folds
from morphoclip.profiling.reading.dominance import dominating_features


@dataclass(frozen=True)
class Arm:
    """Profiles of the wells (one row per well, or per well and FOLD of the design), their normalisation, and notes on both."""

    table: pd.DataFrame
    normalizer: Normalizer
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Scored:
    """An arm's score card, and its scored wells after normalisation (for a cross-fit, the first half)."""

    card: ScoreCard
    wells: pd.DataFrame


@dataclass(frozen=True)
class Scoring:
    """Settings of scoring: keys of configs/evaluate.yaml and configs/score.

    Attributes:
        tasks: names or objects; None: those of the protocol.
        normalize_within: `set`: each set of plates separately, on the features its plates share; `table`: all wells at
            once, so that sets share the statistics fitted on their pooled controls.
        crossfit: never score against negative controls that normalisation was fitted on.
    """

    protocol: Protocol
    tasks: Sequence[str | Task | Measure] | None = None
    normalize_within: str = "set"
    crossfit: bool = True
    p_convention: str = "exact"
    ties: str = "expected"
    null_size: int | None = None
    seed: int = 0
    strict: bool = False

    def __post_init__(self) -> None:
        if self.normalize_within not in ("set", "table"):
            raise ValueError(f"normalize_within={self.normalize_within!r}: choose set or table")

    @classmethod
    def of(cls, config: DictConfig, protocol: Protocol) -> Scoring:
        """The settings in `config`, whose other keys are ignored; tasks are read from the config folders."""
        known = [
            field.name for field in fields(cls) if field.name in config and field.name not in ("protocol", "tasks")
        ]
        plain = as_dict(config)
        tasks: list[Task | Measure] = []
        if plain["tasks"] is None or plain["tasks"]:
            tasks = chosen_tasks(
                plain["tasks"], protocol, negatives=plain.get("negatives"), changes=plain.get("task"), keys=plain,
                folders=own_folders(),
            )  # fmt: skip
        return cls(protocol, tasks, **{name: plain[name] for name in known})


def score_arms(arms: Mapping[str, Arm], scoring: Scoring, design: Design | None = None) -> dict[str, Scored]:
    """Score every arm on the same wells, with the same rules and the same number of negative controls.

    Args:
        arms: name -> profiles and their normalisation.
        design: the roles of the wells; None: every well is scored and is a query, and none was trained on.
    """
    if design is not None and design.folds:
        by_model = replace(scoring.protocol, set_by=[*scoring.protocol.set_by, FOLD])
        scoring = replace(scoring, protocol=by_model, normalize_within="set")
    # A normalisation fitted on controls leaves half of them to rank against: then every arm gets equally many.
    halve = scoring.crossfit and any(arm.normalizer.uses_negcon for arm in arms.values())
    scored = {}
    for name, arm in arms.items():
        table = arm.table if design is None else design.join(arm.table)
        folds, notes = normalized_folds(table, arm.normalizer, scoring, halve)
        card, wells = score_folds(folds, scoring)
        if arm.normalizer.uses_negcon and not scoring.crossfit:
            card.alarms += crossfit_alarm(card, table, arm.normalizer, scoring)
        card.notes = list(dict.fromkeys([*arm.notes, *notes, *card.notes]))
        card.alarms += dominating_features(wells)
        scored[name] = Scored(card, wells)
    return scored


def on_common_wells(arms: Mapping[str, Arm]) -> tuple[dict[str, Arm], list[str]]:
    """The arms on the wells that all of them have, and a note on the others.

    Raises:
        ValueError: the arms have no well in common.
    """
    keys = [c for c in schema.WELL_KEY if all(c in arm.table for arm in arms.values())]
    wells = {name: pd.MultiIndex.from_frame(arm.table[keys].astype(str)) for name, arm in arms.items()}
    first, *others = wells.values()
    common = first[np.logical_and.reduce([first.isin(index) for index in others], initial=True)]
    if not len(common):
        examples = " and ".join(f"{name} has {' '.join(index[0])}" for name, index in wells.items() if len(index))
        raise ValueError(
            f"the profiles to compare have no well in common by {', '.join(keys)}: {examples}; give profiles of the same "
            "wells, and name plates and wells alike"
        )
    if all(len(index) == len(common) for index in wells.values()):
        return dict(arms), []
    counts = ", ".join(f"{name} has {len(index)} wells" for name, index in wells.items())
    kept = {
        name: replace(arm, table=arm.table[wells[name].isin(common)].reset_index(drop=True))
        for name, arm in arms.items()
    }
    return kept, [f"{counts}: all are scored on the {len(common)} that they have in common"]


def normalized_folds(
    table: pd.DataFrame, normalizer: Normalizer, scoring: Scoring, halve: bool = True
) -> tuple[list[pd.DataFrame], list[str]]:
    """(the normalised table, or the two tables of a cross-fit; notes on wells and features left out).

    Statistics are fitted on the wells of training if the table marks them; a plate not trained on is centred on its own
    controls.

    Args:
        halve: return two tables, each with half of the controls, even if no step is fitted on controls.
    """

    def normalize(part: pd.DataFrame) -> list[pd.DataFrame]:
        rows = part[TRAINED].to_numpy() if TRAINED in part and not part[TRAINED].all() else None
        if not scoring.crossfit:
            return [normalizer.fit_transform(part) if rows is None else normalizer.fit(part, rows).transform(part)]
        tables = crossfit(normalizer, part, seed=scoring.seed, rows=rows)
        if len(tables) == 1 and halve:
            fold = negcon_folds(part, scoring.seed)
            tables = [tables[0][fold != 1 - half] for half in (0, 1)]
        return tables

    if scoring.normalize_within == "table":
        return normalize(table), []
    sets, notes = plate_sets(table, scoring.protocol)
    folds = zip(*(normalize(plate_set.table) for plate_set in sets), strict=True)
    return [pd.concat(parts, ignore_index=True) for parts in folds], notes


def score_folds(folds: Sequence[pd.DataFrame], scoring: Scoring) -> tuple[ScoreCard, pd.DataFrame]:
    """(score card, first fold) of normalised tables, by the roles of their wells if they have any."""
    folds = [fold[fold[SCORED].to_numpy()] if SCORED in fold else fold for fold in folds]
    queries, profiled = (folds[0][role].to_numpy() if role in folds[0] else None for role in (QUERY, PROFILED))
    card = score(
        folds,
        tasks=scoring.tasks,
        protocol=scoring.protocol,
        queries=queries,
        profiled=profiled,
        p_convention=scoring.p_convention,
        ties=scoring.ties,
        null_size=scoring.null_size,
        seed=scoring.seed,
        strict=scoring.strict,
    )
    return card, folds[0]


def crossfit_alarm(card: ScoreCard, table: pd.DataFrame, normalizer: Normalizer, scoring: Scoring) -> list[str]:
    """Score shuffled labels again with cross-fitting and compare; returns the alarm, if any."""
    gate = [task for task in scoring.tasks or () if not isinstance(task, str) and task.name == "replicate"]
    quick = replace(
        scoring, tasks=gate or ["replicate"], p_convention="copairs", null_size=100, strict=False, ties="expected"
    )
    honest = replace(quick, crossfit=True)
    other, _ = score_folds(normalized_folds(table, normalizer, honest)[0], honest)
    plain, crossfitted = (
        c.metrics[c.metrics["metric"] == "shuffled_labels"].query("task == 'replicate'") for c in (card, other)
    )
    alarm = shuffled_labels(*(t[column].mean() for column in ("value", "chance") for t in (plain, crossfitted)))
    return [] if alarm is None else [alarm]


def own_folders() -> list[Path]:
    """The config folders of `--config-dir`, in which a user's own tasks are looked for."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file" and source.provider != "main"]


def preset(name: str) -> Normalizer:
    """The normalisation of a file in configs/normalize.

    Raises:
        ValueError: there is no such file.
    """
    path = configs_dir() / "normalize" / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(
            f"no preset {name!r} in configs/normalize: {sorted(p.stem for p in path.parent.glob('*.yaml'))}"
        )
    return instantiate(load_config(path))


def score_tables(config: DictConfig, tables: Mapping[str, pd.DataFrame], design: Design) -> dict[str, Scored]:
    """Score profile tables by the normalisation, protocol and score settings of a run's config."""
    arms = {name: Arm(table, instantiate(config.normalize)) for name, table in tables.items()}
    return score_arms(arms, Scoring.of(config.score, instantiate(config.protocol)), design)
