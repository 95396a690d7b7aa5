"""Small datasets and fields whose every pixel is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from morphoclip import schema
from morphoclip.data.shards.intensities import describe_field
from morphoclip.data.shards.writer import ShardWriter

CHANNELS = schema.CHANNELS
REAL = Path(__file__).parents[1] / "../shared/data/cpjump1"


@pytest.fixture
def real_data() -> Path:
    if not REAL.is_dir():
        pytest.skip("no ../shared/data/cpjump1 beside the checkout")
    return REAL


def nuclei_field(seed: int, size: int = 128, number: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """(5, size, size) uint16 with `number` bright round nuclei on a noisy background, and their centres."""
    rng = np.random.default_rng(seed)
    field = rng.poisson(300, (len(CHANNELS), size, size)).astype(np.float64)
    centres: list[np.ndarray] = []
    while len(centres) < number:
        candidate = rng.uniform(4, size - 5, 2)
        if all(np.hypot(*(candidate - other)) > 22 for other in centres):
            centres.append(candidate)
    y, x = np.mgrid[:size, :size]
    for centre in centres:
        disc = np.hypot(y - centre[0], x - centre[1]) < 8
        field[0] += 4000 * disc
        field[1:] += 1500 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 300)
    return rng.poisson(field).astype(np.uint16), np.array(centres)


@pytest.fixture(scope="session")
def draw_field() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return nuclei_field


def screen_rows() -> list[dict]:
    """Two batches of two compound plates and a CRISPR plate: 4 genes × 4 compounds, 4 guides, DMSO, an empty well."""
    rows = []
    for batch in ("b1", "b2"):
        for plate in (f"{batch}p1", f"{batch}p2"):
            wells = [("DMSO", "", "negcon")] * 3
            wells += [(f"cpd-{g}{i}", f"GENE{g}", "") for g in range(4) for i in range(4)]
            rows += [_row(batch, plate, place, "compound", *well) for place, well in enumerate(wells)]
        wells = [("NT", "", "negcon"), ("", "", "empty"), *[(f"guide-{g}", f"GENE{g}", "") for g in range(4)]]
        rows += [_row(batch, f"{batch}c", place, "crispr", *well) for place, well in enumerate(wells)]
    return rows


def _row(batch: str, plate: str, place: int, modality: str, perturbation: str, gene: str, control: str) -> dict:
    return {
        schema.BATCH: batch,
        schema.PLATE: plate,
        schema.WELL: schema.well_name(*divmod(place, 6)),
        schema.SITE: "1",
        schema.PERTURBATION: perturbation,
        schema.MODALITY: modality,
        schema.CONTROL_TYPE: control,
        schema.GENE: gene,
        schema.NAME: perturbation,
        schema.CELL_LINE: "U2OS",
        schema.TIMEPOINT: "48",
    }


def write_screen(folder: Path, rows: list[dict], crops: int = 4, size: int = 8, **options) -> Path:
    """A dataset of random crops: crop k of field f is drawn from seed (f, k)."""
    with ShardWriter(folder, CHANNELS, pixel_size_um=1.0, shard_bytes=40_000, **options) as writer:
        for number, row in enumerate(rows):
            field = np.random.default_rng(number).integers(100, 5000, (len(CHANNELS), size, crops * size), np.uint16)
            row = row | describe_field(field, CHANNELS)
            for k in range(crops):
                writer.add(field[:, :, k * size : (k + 1) * size], row, 0, k * size)
    return folder


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: 88 fields with 4 crops each in several shards."""
    return write_screen(tmp_path_factory.mktemp("screen") / "dataset", screen_rows())


@pytest.fixture
def make_screen(tmp_path: Path) -> Callable[..., Path]:
    """`make_screen(rows=None, name="dataset", ...)` writes a screen of its own for a test."""

    def make(rows: list[dict] | None = None, name: str = "dataset", **options) -> Path:
        return write_screen(tmp_path / name, screen_rows() if rows is None else rows, **options)

    return make


@pytest.fixture
def rows_of_screen() -> list[dict]:
    return screen_rows()


PHENIX_NUMBER = {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}


def write_tiffs(folder: Path, row: int, column: int, site: int, field: np.ndarray) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for channel, plane in zip(CHANNELS, field, strict=True):
        name = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{PHENIX_NUMBER[channel]}sk1fk1fl1.tiff"
        paths[channel] = folder / name
        tifffile.imwrite(paths[channel], plane, compression="lzw")
    return paths


@pytest.fixture
def plate_of_tiffs(tmp_path: Path) -> Path:
    """A folder `images/P1` of four fields (A01 sites 1 and 2, A02, B01), and their pixels by `nuclei_field(seed)`."""
    for seed, (row, column, site) in enumerate([(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)]):
        write_tiffs(tmp_path / "images/P1", row, column, site, nuclei_field(seed)[0])
    return tmp_path / "images"


@pytest.fixture
def load_data_csv(plate_of_tiffs: Path) -> Path:
    """A load_data.csv beside the images, with PathNames relative to it."""
    folder = plate_of_tiffs.parent / "load_data"
    folder.mkdir()
    rows = []
    for row, column, site in [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)]:
        entry = {schema.BATCH: "b1", schema.PLATE: "P1", schema.WELL: schema.well_name(row - 1, column - 1)}
        entry[schema.SITE] = site
        for channel in CHANNELS:
            number = PHENIX_NUMBER[channel]
            entry[f"FileName_Orig{channel}"] = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{number}sk1fk1fl1.tiff"
            entry[f"PathName_Orig{channel}"] = "../images/P1"
        rows.append(entry)
    pd.DataFrame(rows).to_csv(folder / "load_data.csv", index=False)
    return folder / "load_data.csv"
