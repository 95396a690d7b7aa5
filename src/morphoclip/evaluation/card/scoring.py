"""Profile table ▶ score card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.card import alarms
from morphoclip.evaluation.card.builder import CardBuilder, Settings
from morphoclip.evaluation.card.scorecard import ScoreCard
from morphoclip.evaluation.measures.battery import BATTERY
from morphoclip.evaluation.tasks.measure import Measure
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol, cross_pairs, plate_sets
from morphoclip.evaluation.tasks.questions import (
    COMPOUND_GENE,
    CRISPR_ORF,
    REPLICATE,
    SISTER,
    TASKS,
    Question,
    consensus,
    cross_modal,
    replicate,
    sister,
)


def score(
    table: pd.DataFrame | Sequence[pd.DataFrame],
    *,
    tasks: str | Sequence[str | Measure] = (REPLICATE, SISTER, COMPOUND_GENE),
    protocol: Protocol | None = None,
    queries: Sequence[bool] | None = None,
    profiled: Sequence[bool] | None = None,
    options: Mapping[str, object] | None = None,
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
        tasks: one or several of replicate, sister, compound_gene, crispr_orf (replicate always runs, since the others
            score the perturbations it retrieves)
            and, on the first fold, neighbours, clustering, batch_effects, relationships, retrieval, mechanism,
            gene_families, bioactivity.
        queries: bool per row of the (first) table: wells that are queries of the replicate task, and whose perturbations
            are queries of the other tasks; the rest are positives and negatives only. Default: all.
        profiled: bool per row of the (first) table: wells that enter the consensus profiles of the other tasks. Default:
            `queries`.
        options: arguments of the measures: relationships_folder, assays, families, …
        strict: alarms of collapse and ties are errors.
        p_convention: exact | copairs | published; see `mean_average_precision` and `exchange_test`.
        null_size: draws per null; default 10,000 for exact, 100,000 for the others.
        ties, threshold, seed: as in those. bootstrap: draws of the intervals. shuffles: permutations of the labels.

    Raises:
        ValueError: unknown task, a table that does not fit the protocol (the message says why), or an alarm under `strict`.
    """
    protocol = protocol or Protocol()
    asked = [tasks] if isinstance(tasks, str) else list(tasks)
    measures = {task.name: task for task in asked if isinstance(task, Measure)}
    names = [task.name if isinstance(task, Measure) else task for task in asked]
    unknown = sorted(set(names) - set(TASKS) - set(BATTERY))
    if unknown:
        raise ValueError(f"tasks {unknown} are unknown: choose among {[*TASKS, *BATTERY]}")
    settings = Settings(p_convention, ties, null_size, threshold, seed, bootstrap, shuffles)
    folds = [
        fold.rename(columns=dict(protocol.columns)) for fold in ([table] if isinstance(table, pd.DataFrame) else table)
    ]
    key = [schema.PLATE, schema.WELL, *protocol.set_by]
    asking = _in_each_fold(folds, queries, key, "queries")
    profiling = asking if profiled is None else _in_each_fold(folds, profiled, key, "profiled")
    fold_sets: list[list[PlateSet]] = []
    notes: list[str] = []
    for fold, asks, makes in zip(folds, asking, profiling, strict=True):
        sets, notes = plate_sets(fold.assign(**{_QUERY: asks, _PROFILED: makes}), protocol)
        fold_sets.append(sets)
    by_set = list(zip(*fold_sets, strict=True))  # one tuple of folds per set
    card = CardBuilder(settings, strict)
    card.notes += notes
    retrieved: dict[str, list[str]] = {}
    for folds_of_set in by_set:
        card.alarm(alarms.collapse(folds_of_set[0]))
        questions = [replicate(s, s.table[_QUERY].to_numpy(), protocol.replicate_diffby) for s in folds_of_set]
        groups = card.add(questions)
        card.note_unpaired(questions[0], groups)
        retrieved[questions[0].subset] = groups.loc[groups["below_corrected_p"], schema.PERTURBATION].tolist()
        card.shuffle(questions)
        card.replicate_controls(questions, folds_of_set)
    for gated in (True, False):
        profiles = [
            tuple(_profiles(s, retrieved[s.name] if gated else None) for s in folds_of_set) for folds_of_set in by_set
        ]
        for questions in _consensus_questions(profiles, names, protocol, card.notes if gated else []):
            questions = [_asked(question) for question in questions]
            card.add(questions, gated=gated)
            if gated:
                card.shuffle(questions)
            else:
                card.consensus_controls(questions[0])
    for name in BATTERY:
        if name in names:
            own = {**(options or {}), **(measures[name].options if name in measures else {})}
            card.add_battery(name, [folds_of_set[0] for folds_of_set in by_set], protocol, **own)
    return card.finish()


_QUERY, _PROFILED = "Metadata__query", "Metadata__profiled"


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


def _asked(question: Question) -> Question:
    """The question restricted to perturbations that have a well among the queries."""
    return replace(question, queries=question.meta[_QUERY].to_numpy(bool))


def _profiles(plate_set: PlateSet, perturbations: Sequence[str] | None) -> PlateSet:
    """Consensus profiles of the profiled wells; the column _QUERY is True if any of their wells is a query."""
    table = plate_set.table
    asks = table.groupby(schema.PERTURBATION)[_QUERY].transform("any")
    marked = replace(plate_set, table=table.assign(**{_QUERY: asks}))
    return consensus(marked, table[_PROFILED].to_numpy(), perturbations)


def _consensus_questions(
    profiles: list[tuple[PlateSet, ...]], tasks: Sequence[str], protocol: Protocol, notes: list[str]
) -> list[list[Question]]:
    """The questions on consensus profiles, each with its folds; adds a note for each that cannot be scored."""
    asked: list[tuple[str, list[Question | None]]] = []
    if SISTER in tasks:
        for folds in profiles:
            if folds[0].modality in protocol.sister_distance:
                asked.append((f"sister, {folds[0].name}", [sister(fold, protocol) for fold in folds]))
    for task, first, second in ((COMPOUND_GENE, "compound", ("crispr", "orf")), (CRISPR_ORF, "crispr", ("orf",))):
        if task in tasks:
            by_name = {folds[0].name: folds for folds in profiles}
            for a, b in cross_pairs([folds[0] for folds in profiles], first, second):
                pairs = zip(by_name[a.name], by_name[b.name], strict=True)
                asked.append((f"{task}, {a.name}-{b.name}", [cross_modal(x, y, protocol) for x, y in pairs]))
    possible = []
    for name, questions in asked:
        found = [question for question in questions if question is not None]
        if len(found) < len(questions):
            notes.append(f"{name}: no two retrieved perturbations share a target, nothing to score")
        else:
            possible.append(found)
    return possible
