"""Protocols: the plates to score, their grouping into sets, and the pairs of sets compared across modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from morphoclip import schema

COMPOUND, EVERYTHING = "compound", "all"
FEW_FEATURES = 0.02  # features with gaps are left out up to this share; more of them mean that wells are broken
LABELS = {"compound": schema.TARGETS, "crispr": schema.GENE, "orf": schema.GENE}


@dataclass(frozen=True)
class Protocol:
    """The choices of a benchmark; each is a YAML file in configs/protocol.

    Attributes:
        name: name shown in the report.
        select: metadata column -> values to keep; other plates are left out. Empty keeps all.
        exclude: plates that match all columns of one of these mappings are left out.
        set_by: plates equal in these columns form a set, within which replicates are compared. Columns that the table
            lacks are left out; without any, all plates are one set.
        columns: column names of the table -> canonical ones, for names that the reader does not know.
        labels: modality -> column of targets ('|'-separated) or gene that sister and cross-modal tasks match.
        tasks: tasks that are scored where the user names none. normalize: the preset used unless `normalize=` names another.
        replicate_diffby: columns in which a well must differ from the query to be its replicate, in all tasks on wells.
        batch_column: column that defines batches for the batch-effect scores. batch_columns: several, in one report.
        time_names: modality -> timepoint -> its name in the published table.
        published: file of published numbers in this package, shown next to ours.
    """

    name: str = "generic"
    select: Mapping[str, Sequence[str]] = field(default_factory=dict)
    exclude: Sequence[Mapping[str, str]] = ()
    set_by: Sequence[str] = (schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT)
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=lambda: dict(LABELS))
    tasks: Sequence[str] = ()
    replicate_diffby: Sequence[str] = ()
    batch_column: str = schema.PLATE
    batch_columns: Sequence[str] = ()
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
        by_dose: whether perturbations have several doses, so that replicates share the dose.
    """

    name: str
    key: Mapping[str, str]
    table: pd.DataFrame
    features: list[str]
    by_dose: bool = False

    @property
    def modality(self) -> str:
        """The modality of the set; `compound` if it holds several."""
        if schema.MODALITY in self.key or schema.MODALITY not in self.table or self.table.empty:
            return self.key.get(schema.MODALITY, COMPOUND)
        found = self.table[schema.MODALITY].unique()
        return str(found[0]) if len(found) == 1 else COMPOUND

    @property
    def replicate_by(self) -> list[str]:
        """The columns that replicates share."""
        return [schema.PERTURBATION, *([schema.DOSE] if self.by_dose else [])]

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
        ValueError: no row is left, a well lacks a value of `set_by`, a plate and well occur twice, or a modality is unknown.
    """
    table = table.rename(columns=dict(protocol.columns))
    for column in (schema.PLATE, schema.WELL, schema.PERTURBATION):
        _column(table, column, protocol)
    if schema.CONTROL_TYPE not in table:
        table = table.assign(**{schema.CONTROL_TYPE: ""})
    set_by, notes = _set_by(table, protocol)
    keep = selected(table, protocol)
    if not keep.all():
        plates = sorted(table.loc[~keep, schema.PLATE].astype(str).unique())
        notes.append(
            f"{len(plates)} plates ({int((~keep).sum())} wells), e.g. {plates[0]}, are not part of protocol {protocol.name}"
        )
    unnamed, negcon = table[schema.PERTURBATION].fillna("") == "", schema.is_negcon(table)
    if (unnamed & negcon).any():
        table = table.assign(**{schema.PERTURBATION: table[schema.PERTURBATION].mask(unnamed & negcon, schema.NEGCON)})
    empty = (unnamed & ~negcon) | (table[schema.CONTROL_TYPE] == schema.EMPTY)
    if (keep & empty).any():
        one = table[keep & empty].iloc[0]
        notes.append(
            f"{int((keep & empty).sum())} wells are empty (no perturbation, or marked so) and left out, e.g. "
            f"{one[schema.PLATE]} {one[schema.WELL]}"
        )
    table = table[keep & ~empty]
    if table.empty:
        raise ValueError(
            f"no well is left for protocol {protocol.name}: it selects plates with {dict(protocol.select)}; check the "
            "profiles and the metadata folder, or use protocol=generic"
        )
    for column in (schema.PLATE, schema.WELL, *set_by):
        _refuse_missing(table, column, protocol)
    table = _by_source(_with_modality(table, notes), notes)
    sets = []
    for key, part in table.groupby(set_by, sort=True) if set_by else [((), table)]:
        plate_set = _plate_set(dict(zip(set_by, map(str, key), strict=True)), part, notes)
        sets.append(_by_dose(plate_set, notes))
    return sets, notes


def _set_by(table: pd.DataFrame, protocol: Protocol) -> tuple[list[str], list[str]]:
    """The columns of `set_by` that the table has, and a note on the others."""
    present = [c for c in protocol.set_by if c in table]
    absent = [c for c in protocol.set_by if c not in table]
    if not absent:
        return present, []
    how = (
        f"sets of plates are defined by {', '.join(present)}" if present else f"all plates are one set, {EVERYTHING!r}"
    )
    if schema.MODALITY in absent:
        how += f", and all wells are taken for {COMPOUND}s"
    return present, [f"the table has no {', '.join(absent)}: {how}"]


def _by_source(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The table with plates named source/plate, if sources use the same plate names."""
    well = [schema.PLATE, schema.WELL]
    if schema.SOURCE not in table or not table.duplicated(well).any() or table.duplicated([schema.SOURCE, *well]).any():
        return table
    notes.append(
        f"sources share names of plates, e.g. {table.loc[table.duplicated(well), schema.PLATE].iloc[0]}: a plate is "
        "named by its source too"
    )
    return table.assign(**{schema.PLATE: table[schema.SOURCE].astype(str) + "/" + table[schema.PLATE].astype(str)})


def _with_modality(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The table with a known modality for each well, if it has the column; wells without one are compounds.

    Raises:
        ValueError: a modality is unknown.
    """
    if schema.MODALITY not in table:
        return table
    modality = table[schema.MODALITY].fillna("").astype(str)
    if (modality == "").any():
        notes.append(f"{int((modality == '').sum())} wells have no {schema.MODALITY}: they are taken for compounds")
    modality = modality.mask(modality == "", COMPOUND)
    if unknown := sorted(set(modality) - set(schema.MODALITIES)):
        one = table[modality == unknown[0]].iloc[0]
        raise ValueError(
            f"{schema.MODALITY} {unknown[0]!r} (plate {one[schema.PLATE]}, well {one[schema.WELL]}) is unknown: use "
            f"{', '.join(schema.MODALITIES)}"
        )
    return table.assign(**{schema.MODALITY: modality})


def _by_dose(plate_set: PlateSet, notes: list[str]) -> PlateSet:
    """The set with doses as text, equal to four digits, if any treated perturbation has several."""
    table = plate_set.table
    if schema.DOSE not in table:
        return plate_set
    number = pd.to_numeric(table[schema.DOSE], errors="coerce")
    text = table[schema.DOSE].fillna("").astype(str).mask(number.notna(), number.map("{:.4g}".format))
    treated = ~schema.is_negcon(table)
    doses = text[treated & (text != "").to_numpy()].groupby(table[schema.PERTURBATION]).nunique()
    if not (doses > 1).any():
        return plate_set
    notes.append(
        f"{plate_set.name}: {int((doses > 1).sum())} of {len(doses)} perturbations have several doses, e.g. "
        f"{doses.idxmax()} has {doses.max()}: replicates share the dose"
    )
    return replace(plate_set, table=table.assign(**{schema.DOSE: text}), by_dose=True)


def check_controls(sets: Sequence[PlateSet], task: str, whole_set: bool) -> None:
    """Raise ValueError if a plate (or, with `whole_set`, a set) has no negative control to rank against."""
    for plate_set in sets:
        plates = set(plate_set.table[schema.PLATE])
        bare = sorted(plates - set(plate_set.table.loc[schema.is_negcon(plate_set.table), schema.PLATE]))
        if len(bare) > (len(plates) - 1 if whole_set else 0):
            raise ValueError(
                f"plate {bare[0]} of set {plate_set.name} has no negcon wells ({len(bare)} such plates), against which "
                f"the task {task} ranks every query: name the controls (control=…, or the column {schema.CONTROL_TYPE} "
                f"= {schema.NEGCON}), rank against other treated wells (negatives=others), or drop the plate"
            )


def cross_pairs(
    sets: Sequence[PlateSet], first: Sequence[str], second: Sequence[str]
) -> list[tuple[PlateSet, PlateSet]]:
    """Pairs of a set of the modalities `first` with one of `second`, same cell line, any timepoint."""

    def background(plate_set: PlateSet) -> tuple[str, ...]:
        return tuple(v for c, v in plate_set.key.items() if c not in (schema.MODALITY, schema.TIMEPOINT))

    return [
        (a, b)
        for a in sets
        if a.modality in first
        for b in sets
        if b.modality in second and background(a) == background(b)
    ]


def _plate_set(key: dict[str, str], part: pd.DataFrame, notes: list[str]) -> PlateSet:
    """The set on the features that its plates share; a few features with gaps are left out."""
    name = "_".join(key.values()) or EVERYTHING
    wells = [c for c in (schema.PLATE, schema.WELL, schema.SITE) if c in part]
    twice = part.duplicated([schema.PLATE, schema.WELL])
    if twice.any():
        row = part[twice].iloc[0]
        hint = "aggregate sites to wells first" if schema.SITE in wells else "keep one row per well"
        raise ValueError(
            f"{int(twice.sum())} rows repeat a plate and well, the first is {row[schema.PLATE]} {row[schema.WELL]}: {hint}"
        )
    features = schema.split_columns(part)[1]
    present = part[features].notna().groupby(part[schema.PLATE].to_numpy()).any()
    everywhere, somewhere = present.all(), present.any()  # elsewhere: features of other sets
    shared = [f for f in features if everywhere[f]]
    if not shared:
        raise ValueError(f"the plates of set {name} share no feature: use profiles made by the same pipeline")
    absent = [f for f in features if not everywhere[f]]
    if some := int((somewhere & ~everywhere).sum()):
        notes.append(f"{name}: {some} features are absent from some of its plates and left out")
    gaps = [f for f in shared if part[f].isna().any()]
    if not 0 < len(gaps) <= FEW_FEATURES * len(shared):
        gaps = []  # none, or so many that scoring refuses the wells by name
    else:
        well = part[part[gaps[0]].isna()].iloc[0]
        notes.append(
            f"{name}: {len(gaps)} of {len(shared)} features have no value in some wells and are left out, e.g. {gaps[0]} in "
            f"{well[schema.PLATE]} {well[schema.WELL]}"
        )
    return PlateSet(name, key, part.drop(columns=[*absent, *gaps]), [f for f in shared if f not in set(gaps)])


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
