"""A small Cell Painting screen with a known answer, drawn from nothing but a seed.

The demo, the tests and the benchmarks walk the path of real plates on it: five 16-bit TIFFs a field in the Cell
Painting Gallery's folder layout, load_data.csv, plate maps, annotation tables; the planted truth lies beside them.

A cell has a phenotype (`phenotype.AXES`), every perturbation pushes it along a sparse direction (`reagents`), cells
are laid out (`cells`), painted (`organelles`), seen through a microscope (`optics`) on a plate (`layout`) with the usual
`confounders`, and written (`writing`, `metadata`).

Version 1 is frozen: no number in this package changes without raising `SIMULATOR_VERSION`. They were set by looking at
pictures, at the scores of the true phenotypes and of fixed features, and at whether a small supervised network reads
each axis off 64-px crops; never at the score of a method of this project. Seed 2026 is for the final table of results:
nobody looks at it before.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.simulation.phenotype import AXES
    from morphoclip.simulation.screen import FINAL_SEED, SIMULATOR_VERSION, ScreenConfig
    from morphoclip.simulation.writing import simulate_screen

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "phenotype": ["AXES"],
        "screen": ["FINAL_SEED", "SIMULATOR_VERSION", "ScreenConfig"],
        "writing": ["simulate_screen"],
    },
)
