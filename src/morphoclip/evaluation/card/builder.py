"""Questions ▶ score card: scores, controls, intervals and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card import alarms
from morphoclip.evaluation.card.scorecard import ALL, METRIC_COLUMNS, ScoreCard
from morphoclip.evaluation.measures.battery import BATTERY
from morphoclip.evaluation.measures.row import Detail, Note
from morphoclip.evaluation.ranking.chance import expected_average_precision
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.evaluation.ranking.significance import check_draws, mean_average_precision
from morphoclip.evaluation.tasks import controls
from morphoclip.evaluation.tasks.pairs import compound_target_pairs
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol
from morphoclip.evaluation.tasks.questions import COMPOUND_GENE, CRISPR_ORF, LABEL, REPLICATE, SISTER, TASKS, Question

DRAWS = {"exact": 10_000, "copairs": 100_000, "published": 100_000}  # as in copairs and the CPJUMP1 paper
_GROUP_NAME = {SISTER: "Metadata_target", COMPOUND_GENE: schema.GENE, CRISPR_ORF: schema.GENE}


@dataclass(frozen=True)
class Settings:
    """Settings of ranking and testing, documented in `score`."""

    p_convention: str = "exact"
    ties: str = "expected"
    null_size: int | None = None
    threshold: float = 0.05
    seed: int = 0
    bootstrap: int = 2000
    shuffles: int = 10

    def __post_init__(self) -> None:
        if self.p_convention not in DRAWS:
            raise ValueError(f"p_convention={self.p_convention!r}: choose among {list(DRAWS)}")
        check_draws("null_size", self.draws)

    @property
    def draws(self) -> int:
        """Draws per null: `null_size`, else what the convention's authors use."""
        return DRAWS[self.p_convention] if self.null_size is None else self.null_size


class CardBuilder:
    """Builds a score card: scores questions and controls one by one, then summarises them."""

    def __init__(self, settings: Settings, strict: bool):
        self.settings, self.strict = settings, strict
        self.tables: dict[str, list[pd.DataFrame]] = {}
        self.queries: dict[str, list[pd.DataFrame]] = {}
        self.pairs: list[pd.DataFrame] = []
        self.details: dict[str, list[pd.DataFrame]] = {}
        self.controls: list[tuple] = []
        self.alarms: list[str] = []
        self.notes: list[str] = []

    def alarm(self, message: str | None) -> None:
        if message is None:
            return
        if self.strict:
            raise ValueError(f"{message} (strict=true makes this an error)")
        self.alarms.append(message)

    def add(self, questions: list[Question], gated: bool = True) -> pd.DataFrame:
        """Score one question over its folds and return the table of groups."""
        first, settings = questions[0], self.settings
        rows = pd.concat([q.average_precision(settings.ties).assign(_fold=i) for i, q in enumerate(questions)])
        sameby = list(first.rules.sameby)
        rows["chance"] = expected_average_precision(rows["n_pos_pairs"], rows["n_total_pairs"])
        if gated:
            self.alarm(alarms.ties(first.task, first.subset, float(rows["tie_share"].mean())))
            groups = _groups_with_p(questions, rows, sameby, settings)
            smallest_p = groups.attrs["smallest_p"]
            self.notes.append(f"p by convention {settings.p_convention}: the smallest reachable is {smallest_p:.2g}")
            coarse = alarms.coarse_null(first.task, first.subset, smallest_p, len(groups), settings.threshold)
            self.alarms += [] if coarse is None else [coarse]  # not an error under `strict`: p is correct, only coarse
        else:
            groups = rows.groupby(sameby)["average_precision"].agg(mean_average_precision="mean", n_queries="size")
            groups = groups.reset_index()
        groups = groups.merge(_counts(rows, sameby, first), on=sameby)
        name = _name_column(first)
        groups = groups.rename(columns={LABEL: name})
        groups["n_queries"] //= len(questions)
        keys = {k if k.startswith(schema.PREFIX) else schema.PREFIX + k: v for k, v in first.key.items()}
        groups = groups.assign(**keys, subset=first.subset)
        groups["row"] = first.subset + "/" + groups[name].astype(str)
        front = ["subset", *keys, name]
        groups = groups[front + [c for c in groups.columns if c not in front]]
        table = first.task if gated else f"{first.task}_ungated"
        self.tables.setdefault(table, []).append(groups)
        if gated:
            self.queries.setdefault(first.task, []).append(_average_folds(rows, sameby).assign(subset=first.subset))
        elif first.task == COMPOUND_GENE:
            self._add_pairs(first, _average_folds(rows, sameby, label=LABEL))
        return groups

    def _add_pairs(self, question: Question, rows: pd.DataFrame) -> None:
        pairs = compound_target_pairs(question, rows)
        asked = [q[q["subset"] == question.subset] for q in self.queries.get(COMPOUND_GENE, [])]
        both = {(p, label) for q in asked for p, label in zip(q[schema.PERTURBATION], q["label"], strict=True)}
        named = zip(pairs[schema.PERTURBATION], pairs["Metadata_target"], strict=True)
        self.pairs.append(pairs.assign(retrieved=[pair in both for pair in named]))

    def note_unpaired(self, question: Question, groups: pd.DataFrame) -> None:
        asked = question.meta.loc[question.queries, schema.PERTURBATION].nunique()
        if asked > len(groups):
            self.notes.append(
                f"{question.subset}: {asked - len(groups)} of {asked} perturbations have only one well and are not scored"
            )

    def shuffle(self, questions: list[Question]) -> None:
        settings, first = self.settings, questions[0]
        if not settings.shuffles:
            return
        table = controls.shuffled(questions, settings.ties, settings.shuffles, settings.seed)
        groups = self.tables[first.task][-1]
        groups["shuffled_labels"] = groups[_name_column(first)].map(table.mean(axis=1))
        values = table.mean().to_numpy()
        chance = float(groups["chance"].mean())
        spread = 1.96 * values.std(ddof=1) if len(values) > 1 else float("nan")
        mean = float(values.mean())
        self.controls.append(
            (first.task, first.subset, "shuffled_labels", mean, mean - spread, mean + spread, len(values), chance)
        )

    def replicate_controls(self, questions: list[Question], folds: Sequence[PlateSet]) -> None:
        first, ties = questions[0], self.settings.ties
        self._control(first, "same_position_dmso", controls.same_position_dmso(folds, questions, ties), schema.WELL)
        self._control(first, "replicate_other_well", controls.other_well(questions, ties), schema.PERTURBATION)
        self._control(first, "cell_count_alone", controls.cell_count_alone(first, ties), schema.PERTURBATION)

    def consensus_controls(self, question: Question) -> None:
        """Cell count, and structure for sisters, on the same profiles as the task, without the retrieval filter."""
        ties = self.settings.ties
        if question.task == SISTER:
            self._control(question, "structure_alone", controls.structure_alone(question, ties), LABEL)
        self._control(question, "cell_count_alone", controls.cell_count_alone(question, ties), LABEL)

    def _control(self, question: Question, name: str, rows: pd.DataFrame | None, by: str) -> None:
        if rows is None:
            if name == "cell_count_alone":
                self.notes.append(f"cell count alone is not available: the table has no complete {schema.CELL_COUNT}")
            return
        chance = float(expected_average_precision(rows["n_pos_pairs"], rows["n_total_pairs"]).mean())
        groups = rows.groupby(by)["average_precision"].mean()
        clusters = _members(rows, by) if by == LABEL else groups.index
        low, high = self._interval(groups.to_numpy(), clusters)
        self.controls.append(
            (question.task, question.subset, name, float(groups.mean()), low, high, len(groups), chance)
        )

    def add_battery(self, name: str, sets: Sequence[PlateSet], protocol: Protocol, **options: object) -> None:
        for found in BATTERY[name](sets, protocol, seed=self.settings.seed, **options):
            if isinstance(found, Detail):
                self.details.setdefault(name, []).append(found.table)
            elif isinstance(found, Note):
                self.notes.append(found.text)
            else:
                subset, metric, value, n, chance, low, high = found
                self.controls.append((name, subset, metric, value, low, high, n, chance))

    def finish(self) -> ScoreCard:
        tables = {name: pd.concat(parts, ignore_index=True) for name, parts in self.tables.items()}
        rows = []
        for name, table in tables.items():
            task, ungated = name.removesuffix("_ungated"), name.endswith("_ungated")
            for subset, part in [(ALL, table), *table.groupby("subset", sort=True)]:
                rows += self._metrics(task, str(subset), part, ungated)
        rows += [(*control, "") for control in self.controls]
        metrics = pd.DataFrame(rows, columns=METRIC_COLUMNS)
        order = {task: i for i, task in enumerate([*TASKS, *BATTERY])}
        metrics = metrics.sort_values("task", key=lambda c: c.map(order), kind="stable", ignore_index=True)
        queries = {name: pd.concat(parts, ignore_index=True) for name, parts in self.queries.items()}
        pairs = pd.concat(self.pairs, ignore_index=True) if self.pairs else pd.DataFrame()
        alarms, notes = list(dict.fromkeys(self.alarms)), list(dict.fromkeys(self.notes))
        details = {name: pd.concat(parts, ignore_index=True) for name, parts in self.details.items()}
        return ScoreCard(metrics, tables, queries, alarms, notes, pairs, details)

    def _metrics(self, task: str, subset: str, part: pd.DataFrame, ungated: bool) -> list[tuple]:
        chance = float(part["chance"].mean())
        convention = "" if ungated else self.settings.p_convention
        columns = {"mean_average_precision_ungated" if ungated else "mean_average_precision": "mean_average_precision"}
        if not ungated:
            columns["fraction_retrieved"] = "below_corrected_p"
        rows = []
        for metric, column in columns.items():
            values = part[column].to_numpy(float)
            low, high = self._interval(values, part["cluster"])
            by_chance = chance if column == "mean_average_precision" else float("nan")
            rows.append((task, subset, metric, values.mean(), low, high, len(values), by_chance, convention))
        return rows

    def _interval(self, values: np.ndarray, clusters: Sequence[str]) -> tuple[float, float]:
        return cluster_interval(values, clusters, draws=self.settings.bootstrap, seed=self.settings.seed)


def _name_column(question: Question) -> str:
    return _GROUP_NAME.get(question.task, schema.PERTURBATION)


def _groups_with_p(
    questions: list[Question], rows: pd.DataFrame, sameby: list[str], settings: Settings
) -> pd.DataFrame:
    if settings.p_convention == "exact":
        from morphoclip.evaluation.ranking.exchange import exchange_questions

        return exchange_questions(questions, rows, settings.draws, settings.threshold, settings.seed)
    return mean_average_precision(
        rows,
        sameby,
        null_size=settings.draws,
        p_convention=settings.p_convention,
        threshold=settings.threshold,
        seed=settings.seed,
    )


def _counts(rows: pd.DataFrame, sameby: list[str], question: Question) -> pd.DataFrame:
    """Chance, pair counts and cluster of each group.

    Groups of the same perturbations (or, if there are compounds among them, the same compounds) are one cluster. If the
    table has split units, clusters are made of these.
    """
    grouped = rows.groupby(sameby, sort=True)
    counts = grouped[["chance", "n_pos_pairs", "n_total_pairs"]].mean()
    if question.task == REPLICATE and schema.NAME in rows:
        counts[schema.NAME] = grouped[schema.NAME].first()
    asking = rows
    if question.task == COMPOUND_GENE:
        for place, modalities in (("compound", ["compound"]), ("gene", ["crispr", "orf"])):
            part = rows[rows[schema.MODALITY].isin(modalities)]
            counts[f"mean_average_precision_from_{place}"] = part.groupby(sameby)["average_precision"].mean()
            counts[f"n_queries_from_{place}"] = part.groupby(sameby)[schema.PERTURBATION].nunique()
        asking = rows[rows[schema.MODALITY] == "compound"]
    counts["members"] = _members(rows, sameby[0])
    unit = schema.UNIT if schema.UNIT in asking else schema.PERTURBATION
    counts["cluster"] = _members(asking, sameby[0], unit).reindex(counts.index).fillna("")
    return counts.reset_index()


def _members(rows: pd.DataFrame, by: str, column: str = schema.PERTURBATION) -> pd.Series:
    """The perturbations (or their units) of each group, joined to one string."""
    return rows.groupby(by)[column].agg(lambda names: "|".join(sorted(set(map(str, names)))))


def _average_folds(rows: pd.DataFrame, sameby: list[str], label: str = "label") -> pd.DataFrame:
    """One row per query: AP, pair counts and chance averaged over the folds."""
    keep = [c for c in (schema.PLATE, schema.WELL, schema.MODALITY, schema.PERTURBATION, schema.NAME) if c in rows]
    by = list(dict.fromkeys([*sameby, *keep]))
    numbers = ["average_precision", "n_pos_pairs", "n_total_pairs", "chance", "tie_share"]
    return rows.groupby(by, sort=True, dropna=False)[numbers].mean().reset_index().rename(columns={LABEL: label})
