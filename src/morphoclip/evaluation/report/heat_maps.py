"""Clustered heat maps of the report: cosines of consensus profiles, in the order of a complete-linkage tree."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import pandas as pd

from morphoclip.evaluation.measures.clustering import heat_map
from morphoclip.evaluation.report.nearest import spoken_names
from morphoclip.evaluation.tasks.protocol import Protocol, plate_sets
from morphoclip.evaluation.tasks.questions import consensus

MOST_PROFILES, MOST_MAPS = 320, 8


def consensus_heat_maps(
    table: pd.DataFrame, protocol: Protocol, retrieved: Sequence[str] | None = None
) -> list[dict[str, object]]:
    """For each set of plates, the cosines of its consensus profiles in the order of a clustering.

    Args:
        table: normalised wells. retrieved: perturbations to show; None for all. Of more than 320, an even selection.

    Returns:
        At most eight maps: name, names, of (number before selection), values (base64 of the strict upper triangle by
        rows, one byte per cosine from -1 (0) to 1 (254)).
    """
    maps = []
    for plate_set in plate_sets(table, protocol)[0][:MOST_MAPS]:
        profiles = consensus(plate_set, np.ones(len(plate_set.table), bool), retrieved)
        n = len(profiles.table)
        if n < 3:
            continue
        shown = np.unique(np.linspace(0, n - 1, min(n, MOST_PROFILES)).round().astype(int))
        cosines, order = heat_map(profiles.values()[shown])
        names = spoken_names(profiles.table).to_numpy()[shown][order].tolist()
        maps.append({"name": plate_set.name, "names": names, "of": n, "values": _packed(cosines)})
    return maps


def _packed(cosines: np.ndarray) -> str:
    upper = cosines[np.triu_indices(len(cosines), 1)]
    return base64.b64encode(np.rint((np.clip(upper, -1, 1) + 1) * 127).astype(np.uint8).tobytes()).decode("ascii")
