"""The retrieval tasks of CPJUMP1 (Chandrasekaran et al. 2024): queries, positives and negatives of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.multilabel import label_incidence
from morphoclip.evaluation.ranking.rules import Rules
from morphoclip.evaluation.ranking.table import ranked
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol

REPLICATE, SISTER, COMPOUND_GENE, CRISPR_ORF = "replicate", "sister", "compound_gene", "crispr_orf"
TASKS = (REPLICATE, SISTER, COMPOUND_GENE, CRISPR_ORF)
_NEGCON = "_negcon"
LABEL = "_label"


@dataclass(frozen=True)
class Question:
    """One task on one subset: profiles, rules, and the rows that are queries."""

    task: str
    subset: str
    key: dict[str, str]
    meta: pd.DataFrame
    feats: np.ndarray
    rules: Rules
    queries: np.ndarray

    def average_precision(self, ties: str = "expected", meta: pd.DataFrame | None = None) -> pd.DataFrame:
        """AP of each query with negatives; `meta` replaces the metadata, e.g. with shuffled labels."""
        rules = self.rules
        table = average_precision(
            self.meta if meta is None else meta,
            self.feats,
            rules.pos_sameby,
            rules.pos_diffby,
            rules.neg_sameby,
            rules.neg_diffby,
            distance=rules.distance,
            ties=ties,
            multilabel_col=rules.multilabel_col,
            queries=self.queries,
        )
        return ranked(table)


def replicate(plate_set: PlateSet, queries: np.ndarray, diffby: Sequence[str] = ()) -> Question:
    """The replicate task: do wells of a perturbation find each other among the negative controls of the query's plate?

    Args:
        queries: bool (N,), wells that are queries; negative controls never are.
        diffby: columns in which a well must differ from the query to be its replicate, e.g. the plate.
    """
    negcon = schema.is_negcon(plate_set.table)
    meta = _metadata(plate_set.table).assign(**{_NEGCON: negcon})
    rules = Rules((schema.PERTURBATION,), tuple(diffby), (schema.PLATE,), (_NEGCON,), (schema.PERTURBATION,))
    return Question(REPLICATE, plate_set.name, dict(plate_set.key), meta, plate_set.values(), rules, queries & ~negcon)


def consensus(plate_set: PlateSet, wells: np.ndarray, perturbations: Sequence[str] | None) -> PlateSet:
    """One median profile per treated perturbation (of `perturbations`, or all) over the rows `wells` (bool).

    The cell count is the median too; other metadata are those of the first well.
    """
    treated = wells & ~schema.is_negcon(plate_set.table)
    if perturbations is not None:
        treated &= plate_set.table[schema.PERTURBATION].isin(list(perturbations)).to_numpy()
    table = plate_set.table[treated]
    grouped = table.groupby(schema.PERTURBATION, sort=True)
    medians = grouped[plate_set.features].median()
    meta = grouped[[c for c in _metadata(table) if c != schema.PERTURBATION]].first()
    if schema.CELL_COUNT in meta:
        counts = pd.to_numeric(table[schema.CELL_COUNT], errors="coerce")
        meta[schema.CELL_COUNT] = counts.groupby(table[schema.PERTURBATION]).median()
    return PlateSet(plate_set.name, plate_set.key, pd.concat([meta, medians], axis=1).reset_index(), plate_set.features)


def sister(profiles: PlateSet, protocol: Protocol) -> Question | None:
    """The sister task: do perturbations with a common target find each other among those without? On consensus profiles.

    A compound can have several targets: a query is a (compound, target). None if the task does not apply.
    """
    distance = protocol.sister_distance.get(profiles.modality)
    if distance is None:
        return None
    meta = with_labels(profiles, protocol)
    if profiles.modality != "compound":
        genes = meta[LABEL].map(lambda labels: labels[0] if labels else "")
        several = genes.map(genes[genes != ""].value_counts()).fillna(0) > 1
        meta = meta[several]
    meta = meta[meta[LABEL].map(len) > 0]
    rules = Rules((LABEL,), (), (), (LABEL,), (LABEL,), distance, LABEL)
    return _question(SISTER, profiles.name, dict(profiles.key), meta, profiles, rules)


def cross_modal(a: PlateSet, b: PlateSet, protocol: Protocol) -> Question | None:
    """Matching across modalities: do perturbations of a gene find each other? `a`, `b` are consensus profiles.

    compound_gene compares absolute cosines, since a drug may mimic or oppose a perturbation of its target; crispr_orf
    uses signed ones. Targets of compounds are limited to genes of the other modality. Both sides are queries.
    """
    features = [f for f in a.features if f in set(b.features)]
    if not features:
        raise ValueError(f"sets {a.name} and {b.name} share no feature: they cannot be compared")
    first, second = with_labels(a, protocol), with_labels(b, protocol)
    second = second[second[LABEL].map(len) > 0]
    genes = {gene for labels in second[LABEL] for gene in labels}
    first = first.assign(**{LABEL: first[LABEL].map(lambda labels: [x for x in labels if x in genes])})
    first = first[first[LABEL].map(len) > 0]
    meta = pd.concat([first, second], ignore_index=True)
    table = pd.concat([a.table.loc[first.index, features], b.table.loc[second.index, features]], ignore_index=True)
    both = PlateSet(f"{a.name}-{b.name}", {}, table, features)
    task, distance = (COMPOUND_GENE, "abs_cosine") if a.modality == "compound" else (CRISPR_ORF, "cosine")
    key = {c: a.key[c] for c in a.key if c not in (schema.MODALITY, schema.TIMEPOINT)}
    for side, one in (("1", a), ("2", b)):
        key |= {f"{c}_{side}": one.key.get(c, "") for c in (schema.MODALITY, schema.TIMEPOINT)}
    rules = Rules((LABEL,), (schema.MODALITY,), (), (LABEL, schema.MODALITY), (LABEL,), distance, LABEL)
    return _question(task, both.name, key, meta, both, rules)


def with_labels(profiles: PlateSet, protocol: Protocol) -> pd.DataFrame:
    """Metadata with the column LABEL: the list of targets or the gene of each profile, [] if there is none."""
    column = protocol.labels.get(profiles.modality)
    if column is None or column not in profiles.table:
        raise ValueError(
            f"set {profiles.name} needs the column {column or 'of its targets'}: annotate the table with "
            f"metadata=<folder>, or name the column for {profiles.modality!r} under `labels` in configs/protocol"
        )
    meta = _metadata(profiles.table)
    lists = meta[column].fillna("").astype(str).map(lambda cell: sorted({x.strip() for x in cell.split("|")} - {""}))
    return meta.assign(**{LABEL: lists, schema.MODALITY: profiles.modality})


def _question(
    task: str, subset: str, key: dict[str, str], meta: pd.DataFrame, profiles: PlateSet, rules: Rules
) -> Question | None:
    """The question, or None if no profile has both a positive and a negative."""
    incidence, _ = label_incidence(meta[LABEL])
    sharing = (incidence @ incidence.T).toarray() > 0
    side = meta[schema.MODALITY].to_numpy()
    allowed = side[:, None] != side if schema.MODALITY in rules.pos_diffby else ~np.eye(len(meta), dtype=bool)
    if not ((sharing & allowed).any(axis=1) & (~sharing & allowed).any(axis=1)).any():
        return None
    feats = profiles.table.loc[meta.index, profiles.features].to_numpy()
    return Question(task, subset, key, meta.reset_index(drop=True), feats, rules, np.ones(len(meta), bool))


def _metadata(table: pd.DataFrame) -> pd.DataFrame:
    return table[[c for c in table.columns if c.startswith(schema.PREFIX)]]
