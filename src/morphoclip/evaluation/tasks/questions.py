"""Questions: a task asked of one set of plates, or of two: profiles, rules, and the rows that are queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.chemistry import molecules
from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.candidates import Positives, row_codes
from morphoclip.evaluation.ranking.multilabel import label_incidence
from morphoclip.evaluation.ranking.rules import Rules
from morphoclip.evaluation.ranking.table import ranked
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol
from morphoclip.evaluation.tasks.task import COMPOUND, PLACES, TARGET, WELLS, Task

LABEL, _NEGCON = "_label", "_negcon"
QUERY, PROFILED = "Metadata__query", "Metadata__profiled"  # roles of wells; without them every well has both


class NotScored(ValueError):
    """Why a task cannot be scored on a set."""


class NoColumn(NotScored):
    """The table lacks a column that the task needs."""


@dataclass(frozen=True)
class Question:
    """A task on one subset.

    Attributes:
        rules: `rules.sameby` are the columns of the groups; for labels other than the perturbation it is LABEL.
        queries: bool (N,).
    """

    task: Task
    subset: str
    key: dict[str, str]
    meta: pd.DataFrame
    feats: np.ndarray
    rules: Rules
    queries: np.ndarray

    def average_precision(self, ties: str = "expected", meta: pd.DataFrame | None = None) -> pd.DataFrame:
        """AP of each query with negatives; `meta` replaces the metadata, e.g. with shuffled labels."""
        rules = self.rules
        four = (rules.pos_sameby, rules.pos_diffby, rules.neg_sameby, rules.neg_diffby)
        meta = self.meta if meta is None else meta
        found = average_precision(
            meta, self.feats, *four, distance=rules.distance, ties=ties, multilabel_col=rules.multilabel_col,
            queries=self.queries,
        )  # fmt: skip
        return ranked(found)

    def labels(self) -> list[set[str]]:
        """What each row may share with another: its label, or its perturbation (at its dose)."""
        if self.rules.multilabel_col is not None:
            return [set(cell) for cell in self.meta[LABEL]]
        return [{"@".join(map(str, row))} for row in self.meta[list(self.rules.pos_sameby)].itertuples(False, None)]


def ask(task: Task, plate_set: PlateSet, protocol: Protocol, groups: pd.DataFrame | None = None) -> Question:
    """The task on one set of plates.

    Args:
        groups: perturbations (and doses) to which the question is limited; default: all.

    Raises:
        NotScored: no profile has both a positive and a negative, or the set takes no part.
    """
    if task.profiles != WELLS:
        return _on_profiles(task, profiles_of(task, plate_set, groups), protocol)
    table, negcon = plate_set.table, schema.is_negcon(plate_set.table)
    kept = ~negcon if task.negatives == "others" else np.ones(len(table), bool)
    if groups is not None:
        kept &= negcon | _among(table, groups)
    table = table[kept]
    if task.by_label:
        return _on_profiles(task, replace(plate_set, table=table.reset_index(drop=True)), protocol)
    meta = _with_columns(_metadata(table).assign(**{_NEGCON: negcon[kept]}), task)
    same, different = tuple(plate_set.replicate_by), tuple(dict.fromkeys((*task.differing, *protocol.replicate_diffby)))
    negatives = {
        "plate": ((schema.PLATE,), (_NEGCON,)),
        "set": ((), (_NEGCON,)),
        "others": ((), (schema.PERTURBATION, *different)),
    }[task.negatives]
    distance = task.distance_of(plate_set.modality)
    if distance is None:
        raise NotScored(f"modality {plate_set.modality} takes no part")
    rules = Rules(same, different, *negatives, same, distance, exchange_within=(schema.PLATE,))
    queries = _role(table, QUERY) & ~negcon[kept] & _selected(table, task)
    question = Question(task, plate_set.name, dict(plate_set.key), meta, plate_set.values()[kept], rules, queries)
    return _answerable(question)


def ask_across(
    task: Task, a: PlateSet, b: PlateSet, protocol: Protocol, groups: Sequence[pd.DataFrame | None] = (None, None)
) -> Question:
    """The task on two sets of different modalities: labels of the first are limited to those of the second.

    Both sides are queries, and the candidates of a query are profiles of the other side.

    Raises:
        NotScored: as `ask`. ValueError: the sets share no feature.
    """
    features = [f for f in a.features if f in set(b.features)]
    if not features:
        raise ValueError(f"sets {a.name} and {b.name} share no feature: they cannot be compared")
    a, b = profiles_of(task, a, groups[0]), profiles_of(task, b, groups[1])
    first, second = (with_labels(one, protocol, task.label) for one in (a, b))
    second = second[second[LABEL].map(len) > 0]
    known = {label for labels in second[LABEL] for label in labels}
    first = first.assign(**{LABEL: first[LABEL].map(lambda labels: [x for x in labels if x in known])})
    first = first[first[LABEL].map(len) > 0]
    meta = pd.concat([first, second], ignore_index=True)
    feats = np.concatenate([one.table.loc[m.index, features].to_numpy() for one, m in ((a, first), (b, second))])
    key = {c: a.key[c] for c in a.key if c not in (schema.MODALITY, schema.TIMEPOINT)}
    for side, one in (("1", a), ("2", b)):
        key |= {f"{c}_{side}": one.key.get(c, "") for c in (schema.MODALITY, schema.TIMEPOINT)}
        key[f"{schema.MODALITY}_{side}"] = one.modality
    distance = task.distance_of(a.modality) or "cosine"
    return _by_label(task, f"{a.name}-{b.name}", key, meta, feats, distance, by_dose=a.by_dose or b.by_dose)


def profiles_of(task: Task, plate_set: PlateSet, groups: pd.DataFrame | None = None) -> PlateSet:
    """The consensus profiles that a task compares; QUERY is true if any well of the perturbation is a query."""
    table = plate_set.table
    wells = _role(table, PROFILED) & ~schema.is_negcon(table)
    by = [schema.PERTURBATION]
    if plate_set.by_dose and task.dose == "each":
        by.append(schema.DOSE)
    elif plate_set.by_dose and task.dose == "top":
        dose = pd.to_numeric(table[schema.DOSE], errors="coerce").where(wells)
        wells &= (dose == dose.groupby(table[schema.PERTURBATION]).transform("max")).to_numpy() | dose.isna().to_numpy()
    if groups is not None:
        wells &= _among(table, groups)
    if task.profiles in PLACES:
        by.append(PLACES[task.profiles])
        if by[-1] not in table:
            raise NoColumn(f"the table has no {by[-1]}, so there are no profiles by {task.profiles}")
    if QUERY in table:
        asks = table.groupby(schema.PERTURBATION)[QUERY].transform("any")
        plate_set = replace(plate_set, table=table.assign(**{QUERY: asks}))
    profiles = consensus(plate_set, wells, by=by, average=task.average)
    return replace(profiles, by_dose=schema.DOSE in by)


def consensus(
    plate_set: PlateSet,
    wells: np.ndarray,
    perturbations: Sequence[str] | None = None,
    by: Sequence[str] = (schema.PERTURBATION,),
    average: str = "median",
) -> PlateSet:
    """One profile per treated perturbation (of `perturbations`, or all) and `by`, the average over the rows `wells` (bool).

    The cell count is averaged too, batch and source the first by name; other metadata are those of the first well.
    """
    by = list(by)
    treated = wells & ~schema.is_negcon(plate_set.table)
    if perturbations is not None:
        treated &= plate_set.table[schema.PERTURBATION].isin(list(perturbations)).to_numpy()
    table = plate_set.table[treated]
    grouped = table.groupby(by, sort=True)
    averages = grouped[plate_set.features].agg(average)
    meta = grouped[[c for c in _metadata(table) if c not in by]].first()
    if schema.CELL_COUNT in meta:
        counts = pd.to_numeric(table[schema.CELL_COUNT], errors="coerce")
        meta[schema.CELL_COUNT] = counts.groupby([table[c] for c in by]).agg(average)
    for column in {schema.BATCH, schema.SOURCE} & set(meta):
        meta[column] = table[column].astype(str).groupby([table[c] for c in by]).min()
    return replace(plate_set, table=pd.concat([meta, averages], axis=1).reset_index())


def with_labels(profiles: PlateSet, protocol: Protocol, label: str = TARGET) -> pd.DataFrame:
    """Metadata with the column LABEL: the list of targets, the gene, or the values of another column; [] if none.

    Raises:
        NoColumn: the table lacks the column.
    """
    column = protocol.labels.get(profiles.modality) if label == TARGET else label
    if column is None or column not in profiles.table:
        raise NoColumn(
            f"set {profiles.name} needs the column {column or 'of its targets'}: annotate the table with "
            f"metadata=<folder>, or name the column for {profiles.modality!r} under `labels` in configs/protocol"
        )
    meta = _metadata(profiles.table)
    lists = meta[column].fillna("").astype(str).map(lambda cell: sorted({x.strip() for x in cell.split("|")} - {""}))
    return meta.assign(**{LABEL: lists, schema.MODALITY: profiles.modality})


def _on_profiles(task: Task, profiles: PlateSet, protocol: Protocol) -> Question:
    distance = task.distance_of(profiles.modality)
    if distance is None:
        raise NotScored(f"modality {profiles.modality} takes no part")
    name, key, values = profiles.name, dict(profiles.key), profiles.values()
    if not task.by_label:
        meta = _with_columns(_metadata(profiles.table), task)
        same = tuple(c for c in profiles.replicate_by if c in meta)
        different = task.differing
        rules = Rules(
            same, different, (), (schema.PERTURBATION, *different), same, distance,
            exchange_within=(PLACES[task.profiles],) if task.profiles in PLACES else (),
        )  # fmt: skip
        return _answerable(Question(task, name, key, meta, values, rules, _role(meta, QUERY)))
    meta = with_labels(profiles, protocol, task.label)
    if profiles.modality in task.only_shared:
        first = meta[LABEL].map(lambda labels: labels[0] if labels else "")
        meta = meta[first.map(first[first != ""].value_counts()).fillna(0) > 1]
    meta = meta[meta[LABEL].map(len) > 0]
    return _by_label(task, name, key, meta, values[meta.index], distance, by_dose=profiles.by_dose)


def _by_label(
    task: Task, subset: str, key: dict[str, str], meta: pd.DataFrame, feats: np.ndarray, distance: str, by_dose: bool
) -> Question:
    """Positives share a label, negatives share none; profiles of one compound are never compared where doses differ."""
    different = task.differing
    if by_dose and COMPOUND not in different:
        different = (*different, COMPOUND)
    meta = _with_columns(meta.reset_index(drop=True), replace(task, different=different))
    units = (COMPOUND,) if COMPOUND in different else (schema.PERTURBATION,) if task.profiles in PLACES else ()
    rules = Rules((LABEL,), different, (), (LABEL, *different), (LABEL,), distance, LABEL, units=units)
    return _answerable(Question(task, subset, key, meta, feats, rules, _role(meta, QUERY)))


def _answerable(question: Question) -> Question:
    """The question, if a query has both a positive and a negative."""
    meta, rules = question.meta, question.rules
    if len(meta) and not question.queries.any():
        raise NotScored("no profile is a query")
    different = [row_codes(meta, [column]) for column in rules.pos_diffby]
    if rules.multilabel_col is None:
        what = "wells" if question.task.profiles == WELLS else f"profiles ({question.task.profiles})"
        apart = f" that differ in {' and '.join(rules.pos_diffby)}" if different else ""
        if not (Positives(row_codes(meta, rules.pos_sameby), different).counts()[question.queries] > 0).any():
            raise NotScored(f"no {schema.PERTURBATION} has two {what}{apart}, so there are no replicates")
        if question.task.negatives == "others" and meta[schema.PERTURBATION].nunique() < 2:
            raise NotScored("all profiles are of one perturbation, so there are no negatives")
        return question
    incidence, _ = label_incidence(meta[LABEL])
    sharing = (incidence @ incidence.T).toarray() > 0
    allowed = ~np.eye(len(meta), dtype=bool)
    for codes in different:
        allowed &= codes[:, None] != codes
    if not ((sharing & allowed).any(axis=1) & (~sharing & allowed).any(axis=1)).any():
        what = "a target" if question.task.label == TARGET else f"a value of {question.task.label}"
        which = "retrieved perturbations" if question.task.retrieved else "perturbations"
        raise NotScored(f"no two {which} share {what} that others lack")
    return question


def _with_columns(meta: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Metadata with the columns in which a task's positives differ."""
    if COMPOUND in task.differing:
        found = molecules(meta)
        meta = meta.assign(**{COMPOUND: found.where(found != "", meta[schema.PERTURBATION])})
    if absent := [c for c in task.differing if c not in meta]:
        raise NoColumn(f"the table has no {absent[0]}, in which positives must differ")
    return meta


def _among(table: pd.DataFrame, groups: pd.DataFrame) -> np.ndarray:
    """bool (N,): wells of the perturbations (and doses) in `groups`."""
    return pd.MultiIndex.from_frame(table[list(groups)]).isin(pd.MultiIndex.from_frame(groups))


def _selected(table: pd.DataFrame, task: Task) -> np.ndarray:
    """bool (N,): the wells that the task's `where` names."""
    chosen = np.ones(len(table), bool)
    for column, patterns in task.where.items():
        if column not in table:
            raise NoColumn(f"the table has no {column}, which names the queries")
        names = table[column].fillna("").astype(str)
        found = [name for name in names.unique() if any(fnmatch(name, pattern) for pattern in patterns)]
        chosen &= names.isin(found).to_numpy()
        if not chosen.any():
            raise NotScored(f"no well has {column} among {list(patterns)}; it holds {sorted(names.unique())[:8]}")
    return chosen


def _role(table: pd.DataFrame, role: str) -> np.ndarray:
    return table[role].to_numpy(bool) if role in table else np.ones(len(table), bool)


def _metadata(table: pd.DataFrame) -> pd.DataFrame:
    return table[[c for c in table.columns if c.startswith(schema.PREFIX)]]
