"""Replicates of a set of wells: single wells, or consensus profiles within a plate, batch or source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.experiment.pipelines.axes import WELL, Replicates
from morphoclip.experiment.pipelines.tables import FIT, WellSet
from morphoclip.profiling.aggregation import reduction
from morphoclip.profiling.step import GROUP_COLUMNS


@dataclass(frozen=True)
class Profiles:
    """The profiles of a set at one level of replicates, before their features are known.

    Attributes:
        how: mean | median of the wells of a profile.
        wells: rows of the wells that are averaged, (G, k) for each number of wells k; profiles (P,) are in this order.
        block: code of each profile's plate, batch or source, (P,). perturbation: its code, (P,).
        negative: bool (P,), of negative controls. signal, half: as in WellSet, (P,).
        names: plate and (first) well of each profile.
    """

    how: str
    wells: list[np.ndarray]
    block: np.ndarray
    perturbation: np.ndarray
    negative: np.ndarray
    signal: np.ndarray
    half: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, wells: WellSet, level: str) -> Profiles:
        """The profiles of a set's scored wells.

        Negative controls have no perturbation to average by. At levels other than `well` those of a plate (batch, source)
        are dealt to groups as large as the median group of the signal's wells, so that both sides of a comparison are
        averages of equally many wells.

        Raises:
            ValueError: the set has one plate (batch, source), or too few negative controls for one group.
        """
        replicates = Replicates.parse(level)
        within = schema.PLATE if replicates.within == WELL else str(GROUP_COLUMNS[replicates.within])
        if within not in wells.metadata or wells.metadata[within].nunique() < 2:
            raise ValueError(f"fewer than two values of {within}, so no replicates: leave this level out")
        block = pd.factorize(wells.metadata[within].astype(str), sort=True)[0]
        perturbation = pd.factorize(wells.metadata[schema.PERTURBATION].astype(str))[0]
        treated, negcon = np.flatnonzero(~wells.negcon), np.flatnonzero(wells.negcon & (wells.fold != FIT))
        if replicates.within == WELL:
            groups = [np.array([row]) for row in (*treated, *negcon)]
        else:
            by = pd.Series(treated).groupby([perturbation[treated], block[treated]])
            groups = [rows.to_numpy() for _, rows in by]
            size = round(float(np.median([len(rows) for rows in groups if wells.signal[rows].any()])))
            for rows in (negcon[block[negcon] == code] for code in np.unique(block)):
                if len(rows) < size:
                    raise ValueError(
                        f"{len(rows)} negative controls of a {replicates.within} are scored against, fewer than the {size} "
                        "wells of a replicate: leave this level out"
                    )
                groups += np.array_split(rows, len(rows) // size)
        stacked = list(_stacked(groups))
        first = np.concatenate([rows[:, 0] for rows in stacked])
        signal = np.concatenate([wells.signal[rows].any(axis=1) for rows in stacked])
        places = wells.metadata.iloc[first]
        return cls(
            how=replicates.how,
            wells=stacked,
            block=block[first],
            perturbation=perturbation[first],
            negative=wells.negcon[first],
            signal=signal,
            half=wells.half[first],
            names=(places[schema.PLATE].astype(str) + " " + places[schema.WELL].astype(str)).to_list(),
        )

    def values(self, x: np.ndarray) -> np.ndarray:
        """Profiles (P, D) of the set's wells (N, D)."""
        reduce = reduction(self.how)
        parts = [x[rows[:, 0]] if rows.shape[1] == 1 else reduce(x[rows], axis=1) for rows in self.wells]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _stacked(groups: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Groups of equal size as one array (G, k), by size."""
    sizes = np.array([len(rows) for rows in groups])
    for size in np.unique(sizes):
        yield np.stack([groups[i] for i in np.flatnonzero(sizes == size)])
