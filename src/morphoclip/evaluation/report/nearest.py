"""Nearest neighbours of selected wells, from well to badly replicated perturbations, with images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows
from morphoclip.evaluation.tasks.protocol import Protocol

SAME, RELATED, CONTROL, OTHER = "same perturbation", "same target", "negative control", "no shared target"


@dataclass(frozen=True)
class Neighbourhood:
    """A well, a negative control of its plate, and its nearest wells; all are row numbers of the table.

    Attributes:
        score: mean average precision of its perturbation's replicates.
        cosines, relations: cosine and relation of each neighbour; a relation is SAME, RELATED, CONTROL or OTHER.
    """

    query: int
    control: int
    score: float
    neighbours: tuple[int, ...]
    cosines: tuple[float, ...]
    relations: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """A row of images: title, and (caption, relation, uint8 image) of control, query and neighbours."""

    title: str
    pictures: list[tuple[str, str, np.ndarray]]


def nearest_wells(
    table: pd.DataFrame, replicates: pd.DataFrame, protocol: Protocol | None = None, count: int = 6, k: int = 5
) -> list[Neighbourhood]:
    """The neighbourhoods of perturbations spaced evenly from the best to the worst replicated one.

    Args:
        table: normalised wells; with several sets, the features common to all.
        replicates: the card's table of the replicate task.
        count: perturbations to show. k: neighbours of each, by cosine among all other wells including controls.
    """
    table = table.reset_index(drop=True)
    features = table[schema.split_columns(table)[1]].dropna(axis="columns")
    if not features.shape[1] or len(table) <= k:
        return []
    x = unit_rows(checked_features(features.to_numpy()))
    labels = _labels(table, protocol or Protocol())
    control = schema.is_negcon(table)
    ranked = replicates.sort_values("mean_average_precision", ascending=False, kind="stable")
    chosen = ranked.iloc[np.unique(np.linspace(0, len(ranked) - 1, count).round().astype(int))]
    found = []
    for row in chosen.itertuples():
        wells = table[(table[schema.PERTURBATION] == getattr(row, schema.PERTURBATION)) & ~control]
        wells = wells.sort_values([schema.PLATE, schema.WELL])
        query = int(wells.index[0])
        controls = table[control & (table[schema.PLATE] == table.loc[query, schema.PLATE])].sort_values(schema.WELL)
        if controls.empty:
            continue  # a picture shows the contrast with a control
        cosine = x @ x[query]
        cosine[query] = -np.inf
        nearest = np.argsort(-cosine, kind="stable")[:k]
        relations = tuple(_relation(table, labels, control, query, int(i)) for i in nearest)
        cosines = tuple(float(cosine[i]) for i in nearest)
        neighbours = tuple(map(int, nearest))
        found.append(
            Neighbourhood(
                query, int(controls.index[0]), float(row.mean_average_precision), neighbours, cosines, relations
            )
        )
    return found


def galleries(
    table: pd.DataFrame, found: Sequence[Neighbourhood], pictures: Callable[[pd.DataFrame], list[np.ndarray]]
) -> list[Gallery]:
    """Neighbourhoods with the images of their wells; `pictures` gives one image per row of a table."""
    table = table.reset_index(drop=True)
    names, rows = spoken_names(table), []
    for one in found:
        wells = [one.control, one.query, *one.neighbours]
        captions = ["", "", *(f" · {cosine:.2f}" for cosine in one.cosines)]
        relations = [CONTROL, "query", *one.relations]
        shown = [
            (f"{names[i]}, {table.loc[i, schema.PLATE]} {table.loc[i, schema.WELL]}{also}", relation, image)
            for i, also, relation, image in zip(wells, captions, relations, pictures(table.loc[wells]), strict=True)
        ]
        rows.append(Gallery(f"{names[one.query]}: replicate mAP {one.score:.2f}", shown))
    return rows


def spoken_names(table: pd.DataFrame) -> pd.Series:
    """A label for each row: the perturbation's name or else its id, with its gene if known."""
    name = table[schema.PERTURBATION].astype(str)
    if schema.NAME in table:
        spoken = table[schema.NAME].fillna("").astype(str)
        name = spoken.where(spoken != "", name)
    if schema.GENE in table:
        gene = table[schema.GENE].fillna("").astype(str)
        name = name.where((gene == "") | (gene == name), name + " (" + gene + ")")
    return name.where(~schema.is_negcon(table), "negative control")


def _labels(table: pd.DataFrame, protocol: Protocol) -> list[set[str]]:
    """The set of targets (compounds) or genes (reagents) of each row."""
    modality = table.get(schema.MODALITY, pd.Series("compound", table.index)).astype(str)
    cells = pd.Series("", table.index)
    for name, column in protocol.labels.items():
        if column in table:
            cells = cells.where(modality != name, table[column].fillna("").astype(str))
    return [set(filter(None, cell.split("|"))) for cell in cells]


def _relation(table: pd.DataFrame, labels: list[set[str]], control: np.ndarray, query: int, other: int) -> str:
    if control[other]:
        return CONTROL
    if table.loc[other, schema.PERTURBATION] == table.loc[query, schema.PERTURBATION]:
        return SAME
    return RELATED if labels[query] & labels[other] else OTHER
