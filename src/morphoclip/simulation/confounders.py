"""Confounders: effects of batch, plate and well position on every image, independent of the perturbation."""

from __future__ import annotations

import numpy as np

from morphoclip.schema import well_position
from morphoclip.simulation.layout import COLUMNS, ROWS, Plate
from morphoclip.simulation.optics import Conditions
from morphoclip.simulation.phenotype import AXES
from morphoclip.simulation.streams import stream

BATCH_GAIN, PLATE_GAIN, WELL_GAIN = 0.25, 0.15, 0.12  # log-spread of the stains' gain
COLUMN_GAIN = 0.12  # log-change of the gain from the first to the last column, typical size
BATCH_DRIFT, PLATE_DRIFT, WELL_DRIFT, EDGE_DRIFT = 0.25, 0.15, 0.10, 0.35  # axis units
EDGE_LOSS = 0.15  # share of cells missing in the outermost wells


def conditions(seed: int, plate: Plate, well: str) -> Conditions:
    """The confounders of one well: effects of batch, plate, column, edge and well."""
    row, column = well_position(well)
    batch_rng, plate_rng = stream(seed, "batch", plate.batch), stream(seed, "plate", plate.name)
    well_rng, screen_rng = stream(seed, "well", plate.name, well), stream(seed, "screen")

    place = column / (COLUMNS - 1) - 0.5
    log_gain = BATCH_GAIN * batch_rng.standard_normal(5) + PLATE_GAIN * plate_rng.standard_normal(5)
    log_gain += COLUMN_GAIN * place * plate_rng.standard_normal(5) + WELL_GAIN * well_rng.standard_normal(5)
    log_ground = 0.15 * batch_rng.standard_normal(5) + 0.1 * plate_rng.standard_normal(5)
    log_ground += 0.05 * well_rng.standard_normal(5)

    edge = max(0.0, 1 - min(row, column, ROWS - 1 - row, COLUMNS - 1 - column) / 2)  # 1 outermost, 0 two wells in
    drift = BATCH_DRIFT * batch_rng.standard_normal(len(AXES)) + PLATE_DRIFT * plate_rng.standard_normal(len(AXES))
    drift += WELL_DRIFT * well_rng.standard_normal(len(AXES))
    drift += EDGE_DRIFT * edge * screen_rng.standard_normal(len(AXES))
    rings = plate_rng.integers(2, 6)
    return Conditions(
        gain=np.exp(log_gain).astype(np.float32),
        background=np.exp(log_ground).astype(np.float32),
        blur=np.exp(0.05 + 0.1 * plate_rng.standard_normal(5) + 0.1 * plate_rng.standard_normal()).astype(np.float32),
        halo=float(plate_rng.uniform(0.05, 0.11)),
        shade=plate_rng.uniform(0.03, 0.18, 5).astype(np.float32),
        light=plate_rng.uniform(-0.3, 0.3, 2),
        dust=np.stack(
            [
                plate_rng.random(rings),
                plate_rng.random(rings),
                plate_rng.uniform(5, 12, rings),
                plate_rng.uniform(0.04, 0.1, rings),
            ],
            axis=1,
        ),
        debris=float(plate_rng.uniform(1, 5)),
        drift=drift.astype(np.float32),
        density=float(
            (1 - EDGE_LOSS * edge)
            * np.exp(
                0.1 * batch_rng.standard_normal()
                + 0.06 * plate_rng.standard_normal()
                + 0.12 * well_rng.standard_normal()
            )
        ),
    )
