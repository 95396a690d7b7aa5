"""Writing a whole screen to disk, in parallel; the folder gets its final name when it is complete."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.progress import progress_bar
from morphoclip.schema import CHANNELS
from morphoclip.simulation.field import render_field
from morphoclip.simulation.layout import Plate, plan
from morphoclip.simulation.metadata import image_folder, image_name, stamp, write_metadata, write_truth
from morphoclip.simulation.phenotype import NAMES
from morphoclip.simulation.screen import ScreenConfig

CHUNK = 12  # wells per task


def simulate_screen(
    out: str | Path, config: ScreenConfig | None = None, workers: int | None = None, progress: bool = True
) -> Path:
    """Write a simulated screen in the Cell Painting Gallery's folder layout; the same config gives the same bytes.

    The folder holds `images/<batch>/images/<plate>/Images/*.tiff`, `workspace/load_data_csv/<batch>/<plate>/load_data.csv`
    (image paths relative to that file's folder), `workspace/metadata/` (plate maps, annotations, experiment metadata)
    and `truth/`. Everything is written to `<out>.partial` and renamed at the end; after an interruption the next start
    begins again. On one machine with the same library versions the bytes are the same for any number of workers.

    Args:
        out: the folder to make. A complete screen of the same config is kept and returned at once.
        config: settings of the screen; default: the demo screen.
        workers: processes; default: all available cores, 0 or 1 for this process only.
        progress: show a progress bar and the rate.

    Raises:
        FileExistsError: `out` is not a simulated screen, or was made with another config.
    """
    out, config = Path(out), config or ScreenConfig()
    if out.exists():
        check_same(out, config)
        return out
    plates = plan(config)
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    for plate in plates:
        (partial / image_folder(plate)).mkdir(parents=True)
    write_metadata(partial, config, plates)
    truth = _render(partial, config, plates, workers, progress)
    write_truth(partial, config, truth)
    partial.rename(out)
    return out


def check_same(out: Path, config: ScreenConfig) -> None:
    """Raise FileExistsError unless the folder holds a simulated screen of this config."""
    made = out / "truth/config.json"
    if not made.is_file():
        raise FileExistsError(
            f"{out} exists and is not a simulated screen (it has no truth/config.json): choose another folder"
        )
    if (found := json.loads(made.read_text())) != (wanted := stamp(config)):
        raise FileExistsError(
            f"{out} holds a screen of another configuration: delete it or choose another folder.\n"
            f"  there:  {found}\n  wanted: {wanted}"
        )


def _render(root: Path, config: ScreenConfig, plates: list[Plate], workers: int | None, progress: bool) -> pd.DataFrame:
    """Draw and write all fields; returns one row of truth per well, in the order of the plan."""
    tasks = [
        (root, config, plate, wells)
        for plate in plates
        for wells in np.array_split(list(plate.wells), -(-len(plate.wells) // CHUNK))
    ]
    total = sum(len(plate.wells) for plate in plates) * config.sites
    rows: list[dict] = []
    with progress_bar(total=total, unit="field", desc=f"simulating {root.stem}", show=progress) as bar:
        for part in _map(_render_wells, tasks, workers):
            rows += part
            bar.update(len(part) * config.sites)
    return pd.DataFrame(rows)


def _map(function, tasks: list, workers: int | None) -> Iterator:
    """`map` over processes, in order."""
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers <= 1:
        yield from map(function, tasks)
        return
    # Forked children start at once and need no importable main module; outside Linux forking is unsafe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(function, tasks)


def _render_wells(task: tuple[Path, ScreenConfig, Plate, np.ndarray]) -> list[dict]:
    root, config, plate, wells = task
    rows = []
    for well in map(str, wells):
        phenotypes, roundings = [], []
        for site in range(1, config.sites + 1):
            image, phenotype, rounding = render_field(config, plate, well, site)
            for channel, pixels in zip(CHANNELS, image, strict=True):
                _write_tiff(root / image_folder(plate) / image_name(well, site, channel), pixels)
            phenotypes.append(phenotype)
            roundings.append(rounding)
        rows.append(_truth_row(plate, well, np.concatenate(phenotypes), np.concatenate(roundings)))
    return rows


def _write_tiff(path: Path, pixels: np.ndarray) -> None:
    import tifffile

    tifffile.imwrite(path, pixels, compression="lzw", metadata=None)


def _truth_row(plate: Plate, well: str, phenotype: np.ndarray, rounding: np.ndarray) -> dict:
    """Means over the well's cells; NaN if the well has no cells."""
    mean = phenotype.mean(0) if len(phenotype) else np.full(len(NAMES), np.nan, np.float32)
    return {
        "Metadata_Batch": plate.batch,
        "Metadata_Plate": plate.name,
        "Metadata_Well": well,
        "Metadata_cell_count": len(phenotype),
        "Metadata_rounding": float(rounding.mean()) if len(rounding) else np.nan,
        **dict(zip(NAMES, mean, strict=True)),
    }
