"""Screens small enough to score by hand, and the real CPJUMP1 layout with simulated features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema

SHARED = Path(__file__).parents[2] / "../shared/data/cpjump1"


@pytest.fixture(scope="session")
def cpjump1() -> Path:
    if not SHARED.is_dir():
        pytest.skip("CPJUMP1 data not beside the checkout")
    return SHARED


def simulate_features(
    meta: pd.DataFrame, rng: np.random.Generator, features: int = 24, signal: float = 1.0
) -> np.ndarray:
    """Per-gene, per-reagent and per-plate effects plus noise; negative controls get the last two only."""
    treated = (meta[schema.CONTROL_TYPE] != schema.NEGCON).to_numpy()[:, None]
    gene = meta[schema.GENE].where(meta[schema.GENE] != "", meta[schema.PERTURBATION])

    def effect(column: pd.Series) -> np.ndarray:
        codes, names = pd.factorize(column, sort=True)
        return rng.standard_normal((len(names), features))[codes] * rng.uniform(0, 1, (len(names), 1))[codes]

    x = signal * treated * (effect(gene) + effect(meta[schema.PERTURBATION])) + 0.3 * effect(meta[schema.PLATE])
    return x + rng.standard_normal(x.shape)


@pytest.fixture(scope="session")
def make_screen() -> Callable[..., pd.DataFrame]:
    """make_screen(seed) -> an annotated table: compounds, guides and ORFs of 8 genes, a cell line, 3 plates each."""

    def make(seed: int = 0, signal: float = 1.0, plates: int = 3, controls: int = 12) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        genes = [f"GENE{i}" for i in range(8)]
        rows = []
        for modality, time, reagents in (("compound", "24", 3), ("crispr", "96", 2), ("orf", "48", 1)):
            for plate in range(plates):
                wells = [(f"{modality}-{g}-{k}", g, "") for g in genes for k in range(reagents)]
                wells += [("DMSO" if modality == "compound" else f"{modality}-none", "", schema.NEGCON)] * controls
                for place, (name, gene, control) in enumerate(wells):
                    position = schema.well_name(place // 24, place % 24)
                    second = (
                        genes[(genes.index(gene) + 1) % 8] if gene and modality == "compound" and place % 3 == 0 else ""
                    )
                    targets = "|".join(filter(None, [gene, second])) if modality == "compound" else ""
                    rows.append(
                        ("b1", f"{modality}{plate}", position, name, gene, control, modality, "U2OS", time, targets)
                    )
        columns = [
            schema.BATCH, schema.PLATE, schema.WELL, schema.PERTURBATION, schema.GENE, schema.CONTROL_TYPE,
            schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT, schema.TARGETS,
        ]  # fmt: skip
        meta = pd.DataFrame(rows, columns=columns)
        x = simulate_features(meta, rng, signal=signal)
        return pd.concat([meta, pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])], axis=1)

    return make


@pytest.fixture(scope="session")
def cpjump1_simulated(cpjump1: Path) -> pd.DataFrame:
    """All wells of the 40 CPJUMP1 plates with simulated features."""
    from morphoclip.data.metadata.annotations import annotate

    wells = pd.read_csv(
        cpjump1 / "metadata" / "cpjump1_metadata.csv.gz", dtype=str, usecols=["Metadata_Plate", "Metadata_Well"]
    )
    meta = annotate(wells, cpjump1 / "metadata")
    x = simulate_features(meta, np.random.default_rng(0))
    return pd.concat([meta, pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])], axis=1)
