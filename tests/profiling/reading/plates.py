"""One small screen of known content, and ways to write it to disk as other programs do."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

FEATURES = [f"Cells_Texture_{i}_DNA" for i in range(4)]


def screen() -> pd.DataFrame:
    """Two plates of 12 wells in the columns of a user: 4 DMSO, and 4 compounds at two wells each."""
    generator = np.random.default_rng(3)
    rows = []
    for plate in ("0117", "0118"):
        for i in range(12):
            compound = "DMSO" if i < 4 else f"cpd-{(i - 4) // 2}"
            dose = "0" if i < 4 else "2.5"
            row = {"Plate": plate, "Well": f"{'AB'[i // 6]}{i % 6 + 1:02d}", "Compound": compound, "Dose": dose}
            rows.append({**row, **dict(zip(FEATURES, generator.normal(size=4).round(6), strict=True))})
    return pd.DataFrame(rows)


def canonical() -> pd.DataFrame:
    """What `screen` is read as."""
    table = screen()
    return pd.DataFrame(
        {
            "Metadata_Plate": table["Plate"],
            "Metadata_Well": table["Well"],
            "Metadata_perturbation": table["Compound"],
            "Metadata_dose_um": table["Dose"],
            "Metadata_control_type": ["negcon" if compound == "DMSO" else "" for compound in table["Compound"]],
            **table[FEATURES],
        }
    )


def written(table: pd.DataFrame, path: Path, **options) -> Path:
    table.to_csv(path, index=options.pop("index", False), **options)
    return path


def renamed(path: Path, **names: str) -> Path:
    return written(screen().rename(columns=names), path / "t.csv")


def text_of(table: pd.DataFrame | None = None) -> str:
    return (screen() if table is None else table).to_csv(index=False)


def gzipped(path: Path, text: str | None = None) -> Path:
    path.write_bytes(gzip.compress((text or text_of()).encode()))
    return path


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, text_of())
    return path


def with_value(column: str, value: object, row: int = 5) -> pd.DataFrame:
    """The screen with another value in one cell."""
    table = screen().astype({column: object})
    table.loc[row, column] = value
    return table
