"""A simulated screen as profile tables: no images, the phenotypes of its wells seen through correlated, noisy features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.files import write_atomically
from morphoclip.simulation.confounders import conditions
from morphoclip.simulation.layout import Plate, plan
from morphoclip.simulation.metadata import write_metadata, write_truth
from morphoclip.simulation.phenotype import AXES, NAMES, draw_cells
from morphoclip.simulation.screen import ScreenConfig
from morphoclip.simulation.streams import stream
from morphoclip.simulation.writing import check_same

FEATURES, NOISE = 64, 1.0  # features of a well, and the standard deviation of their noise, beside mixed axes within ±1


def simulate_profiles(out: str | Path, config: ScreenConfig | None = None) -> Path:
    """Write a screen's well profiles in the layout of CPJUMP1's repository; the same config gives the same values.

    The folder holds `profiles/<plate>.csv.gz` (plate, well and `FEATURES` features), `workspace/metadata/` and `truth/` as
    `simulate_screen` writes them. Features mix the axes of morphology and the gains of the stains, with the confounders of
    batch, plate and position, and are standardised by the negative controls of their plate.

    Args:
        out: the folder to make. A complete one of the same config is kept.

    Raises:
        FileExistsError: `out` is not a simulated screen, or was made with another config.
    """
    out, config = Path(out), config or ScreenConfig()
    if out.exists():
        check_same(out, config)
        return out
    mixing = stream(config.seed, "profiles").standard_normal((len(AXES) + 5, FEATURES)) / np.sqrt(len(AXES))
    plates, truth = plan(config), []
    with write_atomically(out) as partial:
        (partial / "profiles").mkdir(parents=True)
        write_metadata(partial, config, plates)
        for plate in plates:
            latent, rows = _wells(config, plate)
            truth += rows
            noise = NOISE * stream(config.seed, "profiles", plate.name).standard_normal((len(latent), FEATURES))
            values = np.tanh(latent @ mixing) + noise
            known = values[[reagent.control for reagent in plate.wells.values()]]
            values = (values - known.mean(0)) / known.std(0)
            table = pd.DataFrame(
                values.astype(np.float32), columns=[f"Cells_Simulated_{i:02d}" for i in range(FEATURES)]
            )
            table.insert(0, "Metadata_Plate", plate.name)
            table.insert(1, "Metadata_Well", list(plate.wells))
            table.to_csv(partial / "profiles" / f"{plate.name}.csv.gz", index=False)
        write_truth(partial, config, pd.DataFrame(truth))
    return out


def _wells(config: ScreenConfig, plate: Plate) -> tuple[np.ndarray, list[dict]]:
    """(wells, axes and stains) of a plate as seen, with its confounders, and a row of truth for each well."""
    seen, rows = [], []
    for well, reagent in plate.wells.items():
        around = conditions(config.seed, plate, well)
        rng = stream(config.seed, plate.name, well, "profile")
        count = max(2, int(rng.poisson(config.cells_per_field * around.density * (1 - 0.6 * reagent.toxicity))))
        phenotype = draw_cells(rng, count, reagent.effect, reagent.penetrance)[0].mean(0)
        seen.append(np.concatenate([phenotype + around.drift, np.log(around.gain)]))
        key = {"Metadata_Batch": plate.batch, "Metadata_Plate": plate.name, "Metadata_Well": well}
        rows.append({**key, "Metadata_cell_count": count, **dict(zip(NAMES, phenotype, strict=True))})
    return np.array(seen), rows
