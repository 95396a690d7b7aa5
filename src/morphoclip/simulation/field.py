"""One field of view of one well: its image, and the true phenotypes of its cells."""

from __future__ import annotations

import numpy as np

from morphoclip.simulation.cells import MARGIN, lay_out, place
from morphoclip.simulation.confounders import conditions
from morphoclip.simulation.layout import Plate
from morphoclip.simulation.optics import photograph
from morphoclip.simulation.organelles import paint
from morphoclip.simulation.phenotype import draw_cells
from morphoclip.simulation.screen import ScreenConfig
from morphoclip.simulation.streams import stream

DEAD_CELLS = 0.5  # mean number of dead cells in an untreated field of 256 x 256 px


def render_field(config: ScreenConfig, plate: Plate, well: str, site: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the field `site` (from 1) of a well.

    Returns:
        image: (5, H, W) uint16, channels DNA, ER, RNA, AGP, Mito.
        phenotype: (n, axes) float32 of the n cells with their nuclei in the field, before any drift.
        rounding: (n,) float32, 0 for spread cells to 1 for rounded ones.
    """
    reagent = plate.wells[well]
    around = conditions(config.seed, plate, well)
    rng = stream(config.seed, plate.name, well, site)
    size = config.field_size
    side = size + 2 * MARGIN
    area = (side / 256) ** 2
    survivors = 1 - 0.6 * reagent.toxicity
    count = max(2, int(rng.poisson(config.cells_per_field * area * around.density * survivors)))
    y, x = place(rng, side, count)
    phenotype, _ = draw_cells(rng, len(y), reagent.effect, reagent.penetrance)
    rounding = np.where(rng.random(len(y)) < 0.05 + 0.6 * reagent.toxicity, rng.beta(2, 2, len(y)), 0)
    rounding = rounding.astype(np.float32)
    cells = lay_out(rng, side, y, x, phenotype + around.drift, rounding)
    dead = DEAD_CELLS * area * (1 + 4 * reagent.toxicity)
    image = photograph(rng, paint(rng, cells), MARGIN, around, dead)
    seen = (np.abs(y - side / 2) < size / 2) & (np.abs(x - side / 2) < size / 2)
    return image, phenotype[seen], rounding[seen]
