from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

REAL_PLATES = Path(__file__).parents[2] / "../shared/data/cpjump1/profiles"


@pytest.fixture
def screen() -> pd.DataFrame:
    """Two batches of two plates, 8 DMSO and 16 treated wells each, 6 correlated features with plate offsets."""
    generator = np.random.default_rng(0)
    rows = []
    mixing = generator.normal(size=(6, 6))
    for p in range(4):
        offset, gain = generator.normal(0, 3, 6), generator.uniform(0.5, 2, 6)
        for i in range(24):
            features = offset + gain * (mixing @ generator.normal(size=6))
            rows.append(
                {
                    "Metadata_Batch": f"B{p // 2}",
                    "Metadata_Plate": f"P{p}",
                    "Metadata_Well": f"{'ABC'[i // 8]}{i % 8 + 1:02d}",
                    "Metadata_perturbation": "DMSO" if i < 8 else f"cpd{i}",
                    "Metadata_control_type": "negcon" if i < 8 else "",
                    **{f"f{j}": value for j, value in enumerate(features)},
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def real_plates() -> pd.DataFrame:
    """The three CPJUMP1 plates, metadata as strings."""
    files = sorted(REAL_PLATES.glob("*.csv.gz"))
    if not files:
        pytest.skip(f"no CPJUMP1 profiles at {REAL_PLATES}")
    tables = [pd.read_csv(file, dtype={"Metadata_Plate": str}) for file in files]
    return pd.concat(tables, ignore_index=True)
