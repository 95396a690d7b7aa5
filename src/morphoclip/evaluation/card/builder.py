"""Questions ▶ score card: scores, controls, intervals and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card import alarms
from morphoclip.evaluation.card.groups import average_folds, counts_of, group_columns, members, nearest_table
from morphoclip.evaluation.card.scorecard import ALL, METRIC_COLUMNS, ScoreCard
from morphoclip.evaluation.measures.row import Detail, Note
from morphoclip.evaluation.ranking.chance import expected_average_precision
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.evaluation.ranking.significance import check_draws, mean_average_precision
from morphoclip.evaluation.tasks.controls import CONTROLS, SHUFFLED, shuffled
from morphoclip.evaluation.tasks.measure import Measure
from morphoclip.evaluation.tasks.pairs import compound_target_pairs, matching_cosines
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol
from morphoclip.evaluation.tasks.questions import LABEL, Question
from morphoclip.evaluation.tasks.task import COMPOUND_GENE, CONTROLLED, MEAN_COSINE, REPLICATE, WELLS, Task
from morphoclip.progress import stage

DRAWS = {"exact": 10_000, "copairs": 100_000, "published": 100_000}  # as in copairs and the CPJUMP1 paper
UNGATED = "_ungated"


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
        self.rows: list[tuple] = []  # of metrics, besides those of the tables
        self.captions: dict[str, str] = {}
        self.scored: set[str] = set()
        self.reasons: dict[str, dict[str, None]] = {}  # task -> why it was not scored, in order
        self.alarms: list[str] = []
        self.notes: list[str] = []

    def alarm(self, message: str | None) -> None:
        if message is None:
            return
        if self.strict:
            raise ValueError(f"{message} (strict=true makes this an error)")
        self.alarms.append(message)

    def not_scored(self, task: Task | Measure, why: str, gated: bool = True) -> None:
        self.reasons.setdefault(task.name, {})[why] = None
        if gated:
            self.notes.append(f"{task.name}, {why}: not scored")

    def add(self, questions: list[Question], gated: bool) -> pd.DataFrame | None:
        """Score one question over its folds, with its controls, and return the table of groups."""
        task = questions[0].task
        self.scored.add(task.name)
        self.captions[task.name] = task.heading
        if task.score == "nearest":
            self._nearest(questions, gated)
            return None
        groups = self._ranked(questions, gated)
        if gated and SHUFFLED in task.controls:
            self._shuffle(questions, groups)
        if not (gated and task.retrieved):
            for name in task.controls:
                self._control(questions, name)
        return groups

    def measure(self, measure: Measure, sets: Sequence[PlateSet], protocol: Protocol) -> None:
        self.captions[measure.name] = measure.caption
        with stage(measure.name):
            results = list(measure(sets, protocol, self.settings.seed))
        for found in results:
            if isinstance(found, Detail):
                self.details.setdefault(measure.name, []).append(found.table)
            elif isinstance(found, Note):
                self.notes.append(found.text)
            else:
                subset, metric, value, n, chance, low, high = found
                self.rows.append((measure.name, subset, metric, value, low, high, n, chance))
                self.scored.add(measure.name)
        if measure.name not in self.scored:
            self.not_scored(measure, "it gives no number for these sets of plates")

    def check_scored(self, tasks: Sequence[Task | Measure]) -> None:
        """Raise ValueError if none of the tasks that were named is scored; an alarm for each that is not."""
        needed = [task.name for task in tasks if task.asked] or [REPLICATE]  # of the default tasks, what replicates
        missing = [name for name in needed if name not in self.scored]
        why = {name: "; ".join([*self.reasons.get(name, {})][:3]) for name in missing}
        if len(missing) == len(needed):
            raise ValueError(f"nothing can be scored: {'. '.join(f'{name}: {reason}' for name, reason in why.items())}")
        for name, reason in why.items():
            self.alarm(f"task {name} was asked for and is not scored: {reason}")

    def _ranked(self, questions: list[Question], gated: bool) -> pd.DataFrame:
        first, settings = questions[0], self.settings
        task, by = first.task, list(first.rules.sameby)
        rows = pd.concat([q.average_precision(settings.ties).assign(_fold=i) for i, q in enumerate(questions)])
        rows["chance"] = expected_average_precision(rows["n_pos_pairs"], rows["n_total_pairs"])
        if gated:
            self.alarm(alarms.ties(task.name, first.subset, float(rows["tie_share"].mean())))
            few = alarms.few_negatives(rows, first, len(questions))
            # not an error under `strict`; of labels there may be few, e.g. genes of a small library
            (self.alarms if by != [LABEL] else self.notes).extend([] if few is None else [few])
            groups = self._groups_with_p(questions, rows, by)
        else:
            groups = rows.groupby(by)["average_precision"].agg(mean_average_precision="mean", n_queries="size")
            groups = groups.reset_index()
        groups = groups.merge(counts_of(rows, first), on=by)
        names = group_columns(first)
        groups = groups.rename(columns=names)
        groups["n_queries"] //= len(questions)
        keys = {k if k.startswith(schema.PREFIX) else schema.PREFIX + k: v for k, v in first.key.items()}
        groups = groups.assign(**keys, subset=first.subset)
        groups["row"] = first.subset + "/" + groups[list(names.values())].astype(str).agg("@".join, axis=1)
        front = ["subset", *keys, *names.values()]
        groups = groups[front + [c for c in groups.columns if c not in front]]
        self.tables.setdefault(task.name if gated else task.name + UNGATED, []).append(groups)
        if gated:
            self._note_unpaired(first, groups)
            self.queries.setdefault(task.name, []).append(average_folds(rows, by).assign(subset=first.subset))
        elif task.name == COMPOUND_GENE:
            self._add_pairs(first, average_folds(rows, by, label=LABEL))
        return groups

    def _groups_with_p(self, questions: list[Question], rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
        first, settings = questions[0], self.settings
        if settings.p_convention == "exact":
            from morphoclip.evaluation.ranking.exchange import exchange_questions

            with stage(f"p-values of {first.task.name}, {first.subset}"):
                groups = exchange_questions(questions, rows, settings.draws, settings.threshold, settings.seed)
            if first.task.profiles == WELLS and first.task.negatives not in CONTROLLED:
                self.notes.append(f"p of {first.task.name}: the labels of the wells of a plate are permuted")
        else:
            groups = mean_average_precision(
                rows, by, null_size=settings.draws, p_convention=settings.p_convention,
                threshold=settings.threshold, seed=settings.seed,
            )  # fmt: skip
        smallest = groups.attrs["smallest_p"]
        self.notes.append(f"p by convention {settings.p_convention}: the smallest reachable is {smallest:.2g}")
        coarse = alarms.coarse_null(first.task.name, first.subset, smallest, len(groups), settings.threshold)
        self.alarms += [] if coarse is None else [coarse]  # not an error under `strict`: p is correct, only coarse
        return groups

    def _add_pairs(self, question: Question, rows: pd.DataFrame) -> None:
        pairs = compound_target_pairs(question, rows)
        asked = [q[q["subset"] == question.subset] for q in self.queries.get(COMPOUND_GENE, [])]
        both = {(p, label) for q in asked for p, label in zip(q[schema.PERTURBATION], q["label"], strict=True)}
        named = zip(pairs[schema.PERTURBATION], pairs["Metadata_target"], strict=True)
        self.pairs.append(pairs.assign(retrieved=[pair in both for pair in named]))

    def _note_unpaired(self, question: Question, groups: pd.DataFrame) -> None:
        by = list(question.rules.sameby)
        if by == [LABEL]:
            return
        asked = question.meta.loc[question.queries, by].drop_duplicates()
        left = asked[~pd.MultiIndex.from_frame(asked).isin(pd.MultiIndex.from_frame(groups[by]))]
        if len(left):
            what = "well" if question.task.profiles == WELLS else "profile"
            apart = question.rules.pos_diffby
            lack = f"no second {what} that differs in {', '.join(apart)}" if apart else f"only one {what}"
            name = question.subset if question.task.name == REPLICATE else f"{question.task.name}, {question.subset}"
            self.notes.append(
                f"{name}: {len(left)} of {len(asked)} perturbations have {lack} and are not scored, e.g. "
                f"{'@'.join(map(str, left.iloc[0]))}"
            )

    def _shuffle(self, questions: list[Question], groups: pd.DataFrame) -> None:
        settings, first = self.settings, questions[0]
        if not settings.shuffles:
            return
        with stage(f"shuffled labels of {first.task.name}, {first.subset}"):
            table = shuffled(questions, settings.ties, settings.shuffles, settings.seed)
        by = list(group_columns(first).values())
        named = groups[by[0]] if len(by) == 1 else pd.MultiIndex.from_frame(groups[by])
        groups[SHUFFLED] = table.mean(axis=1).reindex(named).to_numpy()
        values = table.mean().to_numpy()
        chance = float(groups["chance"].mean())
        spread = 1.96 * values.std(ddof=1) if len(values) > 1 else float("nan")
        mean = float(values.mean())
        self.rows.append(
            (first.task.name, first.subset, SHUFFLED, mean, mean - spread, mean + spread, len(values), chance)
        )

    def _control(self, questions: list[Question], name: str) -> None:
        first = questions[0]
        about = (first.task.name, first.subset)
        if name == SHUFFLED:
            return
        if name == MEAN_COSINE:
            cosines, labels, by_chance, n = matching_cosines(first)
            low, high = self._interval(cosines, labels)
            self.rows.append((*about, name, float(cosines.mean()), low, high, len(cosines), by_chance))
            self.rows.append((*about, f"{name}_of_random_pairs", by_chance, *[float("nan")] * 2, n, float("nan")))
            return
        # features that are the same in all folds; other controls differ by the negative controls of a fold
        found = [CONTROLS[name](q) for q in (questions[:1] if name.endswith("_alone") else questions)]
        asked = [question for question in found if question is not None]
        if len(asked) < len(found):
            if name == "cell_count_alone":
                self.notes.append(f"cell count alone is not available: the table has no complete {schema.CELL_COUNT}")
            return
        rows = pd.concat([question.average_precision(self.settings.ties) for question in asked], ignore_index=True)
        by = list(asked[0].rules.sameby)
        chance = float(expected_average_precision(rows["n_pos_pairs"], rows["n_total_pairs"]).mean())
        groups = rows.groupby(by)["average_precision"].mean()
        clusters = groups.index.get_level_values(0) if by != [LABEL] else members(rows, by)
        low, high = self._interval(groups.to_numpy(), clusters)
        self.rows.append((*about, name, float(groups.mean()), low, high, len(groups), chance))

    def _nearest(self, questions: list[Question], gated: bool) -> None:
        first, only = questions[0], gated and questions[0].task.retrieved
        table, left = nearest_table(questions)
        if left:
            self.notes.append(
                f"{first.task.name}, {first.subset}: {left} of {left + len(table)} profiles have no candidate with their "
                "label and are not queries"
            )
        low, high = self._interval(table["hit"].to_numpy(), table["cluster"])
        metric = "accuracy" if gated else f"accuracy{UNGATED}"
        value, chance = float(table["hit"].mean()), float(table["chance"].mean())
        self.rows.append((first.task.name, first.subset, metric, value, low, high, len(table), chance))
        if not only:
            self.details.setdefault(first.task.name, []).append(table)

    def finish(self) -> ScoreCard:
        gated_first = sorted(self.tables.items(), key=lambda item: item[0].endswith(UNGATED))
        tables = {name: pd.concat(parts, ignore_index=True) for name, parts in gated_first}
        rows = []
        for name, table in tables.items():
            task, ungated = name.removesuffix(UNGATED), name.endswith(UNGATED)
            by_subset = [(s, part) for s, part in table.groupby("subset", sort=True) if s != ALL]
            for subset, part in [(ALL, table), *by_subset]:
                rows += self._metrics(task, str(subset), part, ungated)
        rows += [(*row, "") for row in self.rows]
        metrics = pd.DataFrame(rows, columns=METRIC_COLUMNS)
        order = {task: i for i, task in enumerate(self.captions)}
        metrics = metrics.sort_values("task", key=lambda c: c.map(order), kind="stable", ignore_index=True)
        queries = {name: pd.concat(parts, ignore_index=True) for name, parts in self.queries.items()}
        pairs = pd.concat(self.pairs, ignore_index=True) if self.pairs else pd.DataFrame()
        alarms, notes = list(dict.fromkeys(self.alarms)), list(dict.fromkeys(self.notes))
        details = {name: pd.concat(parts, ignore_index=True) for name, parts in self.details.items()}
        return ScoreCard(metrics, tables, queries, alarms, notes, pairs, details, self.captions)

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
