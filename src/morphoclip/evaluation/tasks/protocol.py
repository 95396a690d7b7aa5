"""Protocols: the plates to score, their grouping into sets, and the pairs of sets compared across modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from morphoclip import schema

LABELS = {"compound": schema.TARGETS, "crispr": schema.GENE, "orf": schema.GENE}


@dataclass(frozen=True)
class Protocol:
    """The choices of a benchmark; each is a YAML file in configs/protocol.

    Attributes:
        name: name shown in the report.
        select: metadata column -> values to keep; other plates are left out. Empty keeps all.
        exclude: plates that match all columns of one of these mappings are left out.
        set_by: plates equal in these columns form a set, within which replicates are compared.
        columns: column names of the table -> canonical ones, for names that the reader does not know.
        labels: modality -> column of targets ('|'-separated) or gene that sister and cross-modal tasks match.
        sister_distance: modality -> cosine (signed) or abs_cosine; modalities not listed have no sister task.
        replicate_diffby: columns in which a well must differ from the query to be its replicate.
        batch_column: column that defines batches for the batch-effect scores.
        batch_columns: several such columns, each scored in one report; they replace `batch_column`.
        tasks: tasks scored unless `tasks=` names others. normalize: preset used unless `normalize=` names another.
        time_names: modality -> timepoint -> its name in the published table.
        published: file of published numbers in this package, shown next to ours.
    """

    name: str = "generic"
    select: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exclude: Sequence[Mapping[str, str]] = ()
    set_by: Sequence[str] = (schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT)
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=lambda: dict(LABELS))
    sister_distance: Mapping[str, str] = field(default_factory=lambda: {"compound": "abs_cosine", "crispr": "cosine"})
    replicate_diffby: Sequence[str] = ()
    batch_column: str = schema.PLATE
    batch_columns: Sequence[str] = ()
    tasks: Sequence[str] = ()
    normalize: str | None = None
    time_names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    published: str | None = None


@dataclass(frozen=True)
class PlateSet:
    """The wells of one modality x cell line x time, on the features its plates share.

    Attributes:
        key: metadata column of `set_by` -> value.
        table: wells with a perturbation, including negative controls, without empty wells.
        features: feature columns present on every plate of the set.
    """

    name: str
    key: Mapping[str, str]
    table: pd.DataFrame
    features: list[str]

    @property
    def modality(self) -> str:
        return self.key.get(schema.MODALITY, "compound")

    def values(self, features: Sequence[str] | None = None) -> np.ndarray:
        return self.table[list(features or self.features)].to_numpy()


def selected(table: pd.DataFrame, protocol: Protocol) -> np.ndarray:
    """bool (N,): rows on plates that the protocol selects.

    Raises:
        ValueError: the table lacks a column of `select` or `exclude`.
    """
    keep = np.ones(len(table), bool)
    for column, values in protocol.select.items():
        keep &= _column(table, column, protocol).isin([str(v) for v in values]).to_numpy()
    for rule in protocol.exclude:
        out = np.logical_and.reduce([_column(table, c, protocol) == str(v) for c, v in rule.items()])
        keep &= ~out
    return keep


def plate_sets(table: pd.DataFrame, protocol: Protocol) -> tuple[list[PlateSet], list[str]]:
    """The protocol's sets in an annotated table, sorted by name, and notes on what was left out and why.

    Raises:
        ValueError: no row is left, a well lacks a value of `set_by`, a plate and well occur twice, or a plate has no
            negative controls.
    """
    table = table.rename(columns=dict(protocol.columns))
    for column in (schema.PLATE, schema.WELL, schema.PERTURBATION, schema.CONTROL_TYPE, *protocol.set_by):
        _column(table, column, protocol)
    notes = []
    keep = selected(table, protocol)
    if not keep.all():
        plates = table.loc[~keep, schema.PLATE].nunique()
        notes.append(f"{plates} plates ({int((~keep).sum())} wells) are not part of protocol {protocol.name}")
    empty = (table[schema.PERTURBATION].fillna("") == "") | (table[schema.CONTROL_TYPE] == schema.EMPTY)
    if (keep & empty).any():
        notes.append(f"{int((keep & empty).sum())} wells are empty and left out")
    table = table[keep & ~empty]
    if table.empty:
        raise ValueError(
            f"no well is left for protocol {protocol.name}: it selects plates with {dict(protocol.select)}; check the "
            "profiles and the metadata folder, or use protocol=generic"
        )
    for column in (schema.PLATE, schema.WELL, *protocol.set_by):
        _refuse_missing(table, column, protocol)
    sets = []
    for key, part in table.groupby(list(protocol.set_by), sort=True):
        plate_set, dropped = _plate_set(dict(zip(protocol.set_by, map(str, key), strict=True)), part)
        sets.append(plate_set)
        if dropped:
            notes.append(f"{plate_set.name}: {dropped} features are absent from some of its plates and left out")
    return sets, notes


def absent_sets(annotations: pd.DataFrame, table: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Sets of the protocol that the table lacks wholly or in part: subset, plates expected, plates present, why."""
    wanted = annotations[selected(annotations, protocol)]
    present = set(table[schema.PLATE])
    rows = []
    for key, part in wanted.groupby(list(protocol.set_by), sort=True):
        plates = sorted(part[schema.PLATE].unique())
        missing = [plate for plate in plates if plate not in present]
        if missing:
            why = f"no profiles of {', '.join(missing)}"
            rows.append(("_".join(map(str, key)), len(plates), len(plates) - len(missing), why))
    table = pd.DataFrame(rows, columns=["subset", "plates_expected", "plates_present", "why"])
    return table.astype({"plates_expected": int, "plates_present": int})


def absent_pairs(annotations: pd.DataFrame, missing: pd.DataFrame, protocol: Protocol) -> list[str]:
    """A note for each compound x gene pair of sets that cannot be scored; `missing` is the result of `absent_sets`."""
    keys = annotations.loc[selected(annotations, protocol), list(protocol.set_by)].drop_duplicates()
    sets = [
        PlateSet("_".join(map(str, key)), dict(zip(protocol.set_by, map(str, key), strict=True)), pd.DataFrame(), [])
        for key in keys.sort_values(list(protocol.set_by)).itertuples(index=False, name=None)
    ]
    gone = set(missing.loc[missing["plates_present"] == 0, "subset"])
    notes = []
    for a, b in cross_pairs(sets, "compound", ("crispr", "orf")):
        lacking = [one.name for one in (a, b) if one.name in gone]
        if lacking:
            notes.append(f"pair {a.name}-{b.name}: not scored, {' and '.join(lacking)} absent")
    return notes


def cross_pairs(sets: Sequence[PlateSet], first: str, second: Sequence[str]) -> list[tuple[PlateSet, PlateSet]]:
    """Pairs of a set of modality `first` with one of the modalities `second`, same cell line, any timepoint."""

    def background(plate_set: PlateSet) -> tuple[str, ...]:
        return tuple(v for c, v in plate_set.key.items() if c not in (schema.MODALITY, schema.TIMEPOINT))

    return [
        (a, b)
        for a in sets
        if a.modality == first
        for b in sets
        if b.modality in second and background(a) == background(b)
    ]


def _plate_set(key: dict[str, str], part: pd.DataFrame) -> tuple[PlateSet, int]:
    name = "_".join(key.values())
    wells = [c for c in (schema.PLATE, schema.WELL, schema.SITE) if c in part]
    twice = part.duplicated([schema.PLATE, schema.WELL])
    if twice.any():
        row = part[twice].iloc[0]
        hint = "aggregate sites to wells first" if schema.SITE in wells else "keep one row per well"
        raise ValueError(
            f"{int(twice.sum())} rows repeat a plate and well, the first is {row[schema.PLATE]} {row[schema.WELL]}: {hint}"
        )
    controls = part[schema.is_negcon(part)][schema.PLATE]
    bare = sorted(set(part[schema.PLATE]) - set(controls))
    if bare:
        raise ValueError(
            f"plate {bare[0]} of set {name} has no negcon wells ({len(bare)} such plates): every query is ranked "
            f"against its plate's negative controls; set {schema.CONTROL_TYPE} or drop the plate"
        )
    features = schema.split_columns(part)[1]
    counts = part[features].notna().groupby(part[schema.PLATE].to_numpy()).any().all()
    shared = [f for f in features if counts[f]]
    if not shared:
        raise ValueError(f"the plates of set {name} share no feature: use profiles made by the same pipeline")
    dropped = len(features) - len(shared)
    return PlateSet(name, key, part.drop(columns=[f for f in features if not counts[f]]), shared), dropped


def _refuse_missing(table: pd.DataFrame, column: str, protocol: Protocol) -> None:
    """Raise ValueError if wells have no value in a column of `set_by`, because grouping would drop them silently."""
    missing = table[column].isna()
    if not missing.any():
        return
    plates = sorted(set(table.loc[missing, schema.PLATE].dropna().astype(str)))
    where = (
        f"plate {plates[0]} and {len(plates) - 1} others" if len(plates) > 1 else f"plate {', '.join(plates) or '?'}"
    )
    remedy = "fill it in, or set it to '' for all wells if it does not apply"
    if column in protocol.set_by:
        remedy += f", or leave it out of set_by of protocol {protocol.name}"
    raise ValueError(
        f"{int(missing.sum())} of {len(table)} wells have no {column} ({where}), so their set is unknown: {remedy}"
    )


def _column(table: pd.DataFrame, column: str, protocol: Protocol) -> pd.Series:
    if column not in table:
        raise ValueError(
            f"protocol {protocol.name} needs the column {column}: give metadata=<folder>, or name your column for it "
            "under `columns` in configs/protocol"
        )
    return table[column].astype(str)
