"""Profile table ▶ score card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card import alarms
from morphoclip.evaluation.card.builder import CardBuilder, Settings
from morphoclip.evaluation.card.scorecard import ScoreCard
from morphoclip.evaluation.tasks.library import Names, chosen_tasks
from morphoclip.evaluation.tasks.measure import Measure
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol, check_controls, cross_pairs, plate_sets
from morphoclip.evaluation.tasks.questions import PROFILED, QUERY, NoColumn, NotScored, Question, ask, ask_across
from morphoclip.evaluation.tasks.task import CONTROLLED, REPLICATE, Task


def score(
    table: pd.DataFrame | Sequence[pd.DataFrame],
    *,
    tasks: Names | None = None,
    protocol: Protocol | None = None,
    negatives: str | None = None,
    queries: Sequence[bool] | None = None,
    profiled: Sequence[bool] | None = None,
    relationships: str | Path | None = None,
    strict: bool = False,
    p_convention: str = "exact",
    ties: str = "expected",
    null_size: int | None = None,
    threshold: float = 0.05,
    seed: int = 0,
    bootstrap: int = 2000,
    shuffles: int = 10,
) -> ScoreCard:
    """Score a table of annotated well profiles, or the tables of a cross-fit; docs/evaluation.md has the rules.

    Args:
        table: one row per well, `Metadata_*` columns and features. A list holds the folds of one cross-fitted table: the
            same treated wells in the same order, each fold with its own negative controls; a query's AP is averaged.
        tasks: names of files in configs/task, `Task` and `Measure` objects (measures see the first fold). `replicate`
            always runs, since others score the perturbations it retrieves. Default: the tasks of the protocol, else
            replicate, sister and compound_gene, as far as the table has what they need.
        negatives: plate | set | others, instead of those of the tasks that rank against negative controls.
        queries: bool per row of the (first) table: wells that are queries of the replicate task, and whose perturbations
            are queries of the other tasks; the rest are positives and negatives only. Default: all.
        profiled: bool per row of the (first) table: wells that enter the consensus profiles of the other tasks. Default:
            `queries`.
        relationships: folder of annotated gene pairs, for the task of that name.
        strict: alarms of collapse, ties and tasks that are not scored are errors.
        p_convention: exact | copairs | published; see `mean_average_precision` and `exchange_test`.
        null_size: draws per null; default 10,000 for exact, 100,000 for the others.
        ties, threshold, seed: as in those. bootstrap: draws of the intervals. shuffles: permutations of the labels.

    Raises:
        ValueError: unknown task, a table that does not fit the protocol or none of the tasks that were named (the message
            says why), or an alarm under `strict`.
    """
    protocol = protocol or Protocol()
    keys = {"relationships": None if relationships is None else str(relationships)}
    chosen = chosen_tasks(tasks, protocol, negatives=negatives, keys=keys)
    settings = Settings(p_convention, ties, null_size, threshold, seed, bootstrap, shuffles)
    folds = [
        fold.rename(columns=dict(protocol.columns)) for fold in ([table] if isinstance(table, pd.DataFrame) else table)
    ]
    controlled = [task.name for task in chosen if isinstance(task, Task) and task.negatives in CONTROLLED]
    if controlled and schema.CONTROL_TYPE not in folds[0]:
        raise ValueError(
            f"task {controlled[0]} needs the column {schema.CONTROL_TYPE} ({schema.NEGCON} for negative controls): name the "
            "controls (control=…), or rank against other treated wells (negatives=others)"
        )
    key = [c for c in dict.fromkeys((*schema.WELL_KEY, *protocol.set_by)) if c in folds[0]]
    asking = _in_each_fold(folds, queries, key, "queries")
    profiling = asking if profiled is None else _in_each_fold(folds, profiled, key, "profiled")
    card = CardBuilder(settings, strict)
    fold_sets: list[list[PlateSet]] = []
    for fold, asks, makes in zip(folds, asking, profiling, strict=True):
        sets, notes = plate_sets(fold.assign(**{QUERY: asks, PROFILED: makes}), protocol)
        fold_sets.append(sets)
    card.notes += notes
    by_set = list(zip(*fold_sets, strict=True))  # one tuple of folds per set
    for one in by_set:
        card.alarm(alarms.collapse(one[0]))
    asked = _Asked(by_set, protocol, card)
    for task in chosen:
        if isinstance(task, Measure):
            card.measure(task, [one[0] for one in by_set], protocol)
        else:
            asked.score(task)
    card.check_scored(chosen)
    return card.finish()


class _Asked:
    """Asks tasks of all sets of plates: what replicates is known to the tasks that follow."""

    def __init__(self, by_set: Sequence[tuple[PlateSet, ...]], protocol: Protocol, card: CardBuilder):
        self.by_set, self.protocol, self.card = by_set, protocol, card
        self.retrieved: dict[str, pd.DataFrame] = {}  # set -> perturbations (and doses)

    def score(self, task: Task) -> None:
        if task.negatives in CONTROLLED:
            for folds in zip(*self.by_set, strict=True):
                check_controls(folds, task.name, whole_set=task.negatives == "set")
        for gated in (True, False) if task.retrieved else (True,):
            for questions in self._questions(task, gated):
                groups = self.card.add(questions, gated)
                if task.name == REPLICATE and groups is not None:
                    by = list(questions[0].rules.pos_sameby)
                    self.retrieved[questions[0].subset] = groups.loc[groups["below_corrected_p"], by]

    def _questions(self, task: Task, gated: bool) -> list[list[Question]]:
        """Each question with its folds; adds a note for each that cannot be scored."""
        found = []
        only = gated and task.retrieved
        sets: list[tuple[tuple[PlateSet, ...], ...]] = [(one,) for one in self.by_set]
        if task.across:
            by_name = {one[0].name: one for one in self.by_set}
            pairs = cross_pairs([one[0] for one in self.by_set], task.modalities, task.across)
            sets = [(by_name[a.name], by_name[b.name]) for a, b in pairs]
            if not sets:
                wanted = f"{' or '.join(task.modalities)} and of {' or '.join(task.across)}"
                self.card.not_scored(task, f"no two sets of {wanted} plates share their cell line", gated)
        for one in sets:
            name = "-".join(folds[0].name for folds in one)
            groups = [self._groups(folds[0]) if only else None for folds in one]
            try:
                if len(one) == 2:
                    folds = zip(*one, strict=True)
                    found.append([ask_across(task, a, b, self.protocol, groups) for a, b in folds])
                else:
                    found.append([ask(task, fold, self.protocol, groups[0]) for fold in one[0]])
            except NoColumn as error:
                if task.asked:
                    raise ValueError(f"task {task.name}: {error}") from error
                self.card.not_scored(task, f"{name}: {error}", gated)
            except NotScored as error:
                self.card.not_scored(task, f"{name}: {error}", gated)
        return found

    def _groups(self, plate_set: PlateSet) -> pd.DataFrame:
        nothing = pd.DataFrame(columns=plate_set.replicate_by)
        return self.retrieved.get(plate_set.name, nothing)


def _in_each_fold(
    folds: list[pd.DataFrame], rows: Sequence[bool] | None, key: list[str], name: str
) -> list[np.ndarray]:
    """`rows` (bool) for each fold: given for the first, matched by the columns `key` in the others."""
    if rows is None:
        return [np.ones(len(fold), bool) for fold in folds]
    chosen_rows, first = np.asarray(rows, bool), folds[0]
    if len(chosen_rows) != len(first):
        raise ValueError(f"{name} has {len(chosen_rows)} entries, the table {len(first)} rows")
    wells = [fold[key] for fold in folds]
    chosen = pd.MultiIndex.from_frame(wells[0][chosen_rows])
    return [pd.MultiIndex.from_frame(table).isin(chosen) for table in wells]
