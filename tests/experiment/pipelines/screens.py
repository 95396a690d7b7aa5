"""Small screens with a plate effect, the steps of a sweep, and the scores of profiles by the general functions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation import average_precision
from morphoclip.experiment.pipelines.scores import HALVES
from morphoclip.experiment.pipelines.tables import FIT, WellSet

STEPS = {
    "center": {"step": "center", "fit_on": "negcon", "by": "plate"},
    "mad": {"step": "mad_robustize", "fit_on": "negcon", "by": "plate", "eps": 1e-6},
    "sphere": {"step": "sphere", "fit_on": "negcon", "by": "all", "method": "ZCA-cor", "shrinkage": 0.5},
    "inverse_normal": {"step": "inverse_normal", "fit_on": "all", "by": "plate"},
    "l2": {"step": "l2"},
    "pca": {"step": "pca", "fit_on": "all", "by": "all", "n_components": 128, "when_fewer": "keep_all"},
}
COLUMNS = [
    schema.BATCH, schema.PLATE, schema.WELL, schema.PERTURBATION, schema.CONTROL_TYPE,
    schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT,
]  # fmt: skip


def draw_screen(
    seed: int = 0,
    features: int = 20,
    plate_effect: float = 2.0,
    times: tuple[str, ...] = ("24",),
    poscon: str = "poscon_cp",
) -> pd.DataFrame:
    """3 plates a timepoint: 12 compounds in one well, 4 positive controls in two, 10 DMSO; no two wells are replicates' copies."""
    wells = (
        [(f"cpd{k}", "") for k in range(12)] + [(f"pos{k % 4}", poscon) for k in range(8)] + [("DMSO", "negcon")] * 10
    )
    rows = [
        ("b1", f"{time}h{plate}", schema.well_name(i // 6, i % 6), name, control, "compound", "U2OS", time)
        for time in times
        for plate in range(3)
        for i, (name, control) in enumerate(wells)
    ]
    meta = pd.DataFrame(rows, columns=COLUMNS)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((len(meta), features)) * np.geomspace(0.5, 2, features)
    for column, size in ((schema.PERTURBATION, 1.5), (schema.PLATE, plate_effect)):
        codes, names = pd.factorize(meta[column])
        effect = size * rng.standard_normal((len(names), features))
        effect[names == "DMSO"] = 0
        x += effect[codes]
    return pd.concat([meta, pd.DataFrame(x, columns=[f"f{i}" for i in range(features)])], axis=1)


def plain(
    meta: pd.DataFrame, x: np.ndarray, signal: np.ndarray, half: np.ndarray, negcon: np.ndarray
) -> dict[str, float]:
    """The scores by the general function, and their chance from its numbers of pairs."""
    found = {}
    meta = meta.assign(_negcon=negcon)
    ap = average_precision(meta, x, [schema.PERTURBATION], [], [schema.PLATE], ["_negcon"], queries=signal)
    for side, name in enumerate(HALVES):
        chosen = ap[signal & (half == side)]
        found[f"{name}_signal"] = chosen.groupby(schema.PERTURBATION)["average_precision"].mean().mean()
        rows = ~negcon & (half == side)
        plates = average_precision(meta[rows], x[rows], [schema.PLATE], [], [], [schema.PLATE])
        found[f"{name}_batch_effect"] = plates["average_precision"].mean()
    return found


def well_by_well(wells: WellSet, x: np.ndarray) -> dict[str, float]:
    """`plain` of the scored wells of a set."""
    kept = wells.fold != FIT
    meta = wells.metadata[kept].reset_index(drop=True)
    return plain(meta, x[kept], wells.signal[kept], wells.half[kept], wells.negcon[kept])
