"""A profile table of two small plates: six perturbations at the same positions, two negative controls a plate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema

NAMES = [f"Cells_Feature_{i}" for i in range(12)]
CONTENTS = ["DMSO", "DMSO", "a", "b", "c", "d", "e", "f"]


def small_table(seed: int = 0, plates: tuple[str, ...] = ("P1", "P2"), gain: float = 1.0) -> pd.DataFrame:
    """Rows of the same perturbation share a direction; `gain` scales all features."""
    rng, directions = np.random.default_rng(seed), np.random.default_rng(7).normal(size=(len(CONTENTS), len(NAMES)))
    rows, values = [], []
    for plate in plates:
        for place, name in enumerate(CONTENTS):
            control = name == "DMSO"
            row = {
                schema.PLATE: plate,
                schema.WELL: f"A{place + 1:02d}",
                schema.PERTURBATION: name,
                schema.MODALITY: "compound",
                schema.CONTROL_TYPE: "negcon" if control else "",
                schema.SMILES: "" if control else "C" * place + "O",
            }
            rows.append(row)
            values.append((0 if control else 2) * directions[place] + 0.3 * rng.normal(size=len(NAMES)))
    return pd.concat([pd.DataFrame(rows), pd.DataFrame(gain * np.array(values), columns=NAMES)], axis=1)
