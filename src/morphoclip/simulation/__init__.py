"""A simulated Cell Painting screen with known truth, determined by a seed.

The demo, the tests and the benchmarks use it like real plates: five 16-bit TIFFs per field in the Cell Painting Gallery's
folder layout, load_data.csv, plate maps, annotation tables, and separately the truth.

A cell has a phenotype (`phenotype.AXES`), which a perturbation shifts along a sparse direction (`reagents`). Cells are
placed in a field (`cells`), stained (`organelles`) and imaged (`optics`) on plates (`layout`) with the usual
`confounders`; `writing` and `metadata` write the files.

Version 1 is frozen: changing any number in this package requires a new `SIMULATOR_VERSION`. The numbers were chosen from
images, from the scores of the true phenotypes and of fixed features, and from whether a small supervised network can
predict each axis from 64-px crops, never from the score of a method of this project. Seed 2026 is reserved for the final
table of results.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from morphoclip.simulation.phenotype import AXES
    from morphoclip.simulation.profiles import simulate_profiles
    from morphoclip.simulation.screen import FINAL_SEED, SIMULATOR_VERSION, ScreenConfig
    from morphoclip.simulation.writing import simulate_screen

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "phenotype": ["AXES"],
        "profiles": ["simulate_profiles"],
        "screen": ["FINAL_SEED", "SIMULATOR_VERSION", "ScreenConfig"],
        "writing": ["simulate_screen"],
    },
)
