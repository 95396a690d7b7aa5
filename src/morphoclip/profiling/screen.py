"""A screen of any size ▶ one profile table on disk: plate by plate, on any number of ranks."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.distributed as dist

from morphoclip.distributed import rank, world_size
from morphoclip.export.provenance import encoder_hash, encoder_provenance
from morphoclip.lock import FolderLock
from morphoclip.models import Encoder
from morphoclip.profiling.aggregation import consensus
from morphoclip.profiling.by_plate import begin_parts, left_out_of, part_names, parts_folder, parts_of, write_plates
from morphoclip.profiling.embedding import LEVELS, open_crops
from morphoclip.profiling.encoding import Run
from morphoclip.profiling.large_tables import write_deep_profiler, write_joined
from morphoclip.profiling.profiles import write_profiles


def embed_screen(
    encoder: Encoder,
    source: str | Path,
    out: str | Path,
    level: str = "well",
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    precision: str = "float32",
    num_workers: int = 0,
    deep_profiler: bool = False,
    reduce: str = "mean",
    within: str = "all",
    progress: bool = True,
    say: Callable[[str], None] = print,
    **crop_options: Any,
) -> int:
    """Write the table of `embed(encoder, source, level)` to a file.

    Each plate is written to a hidden folder beside `out` as soon as it is done. The same command goes on where a killed one
    stopped, and gives the same bytes. In a process group the ranks share the plates; a rank with fewer waits for the others.

    Args:
        out: name ending in .parquet, .csv, .csv.gz or .h5ad; a folder to make with `deep_profiler`.
        deep_profiler: DeepProfiler's layout in place of a table, see `write_deep_profiler`.
        say: called on rank 0 with lines on the plates that are done.
        crop_options: as for `embed`, as are all others.

    Returns:
        The number of rows (of crops with `deep_profiler`).

    Raises:
        FileExistsError: with `deep_profiler`, `out` exists and is not empty.
        BlockingIOError: another process writes the same file.
        ValueError: as `embed`, or plates done before with other settings.
    """
    if level not in LEVELS:
        raise ValueError(f"level={level!r}: use one of {LEVELS}")
    if deep_profiler and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise FileExistsError(f"{out} exists and is not empty: choose another folder or remove it")
    run = Run(batch_size, torch.device(device), precision)
    crops = open_crops(encoder, source, batch_size, num_workers=num_workers, **crop_options)
    by_plate = "crop" if deep_profiler else "well" if level == "perturbation" else level
    known = {
        "encoder": encoder_hash(encoder),
        "source": str(source),
        "level": by_plate,
        "precision": precision,
        "reduce": reduce,
        "options": {key: str(value) for key, value in crop_options.items()},
        "cutting": asdict(crops.settings) if hasattr(crops, "settings") else None,
        "scaling": list(crops.scaling),
        "plates": list(part_names(crops).values()),
        "fields": len(crops.visited),
    }
    folder, names = parts_folder(out), part_names(crops)
    first = rank() == 0
    with FolderLock(folder / "lock") if first else nullcontext():
        done = begin_parts(folder, known) if first else []
        _wait()
        if done and first:
            say(f"{len(done)} of {len(names)} plates were done before")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"\d+ fields left out")  # said below, for all plates together
            write_plates(
                encoder,
                crops,
                folder,
                by_plate,
                run,
                reduce=reduce,
                progress=progress and first,
                say=say if first else None,
            )
        _wait()
        rows = _join(encoder, crops, out, level, known, deep_profiler, within, reduce) if first else 0
    if first:
        shutil.rmtree(folder, ignore_errors=True)
    _wait()
    return rows


def _join(
    encoder: Encoder,
    crops: Any,
    out: str | Path,
    level: str,
    known: dict,
    deep_profiler: bool,
    within: str,
    reduce: str,
) -> int:
    folder = parts_folder(out)
    parts = parts_of(folder, part_names(crops))
    provenance = encoder_provenance(encoder) | {key: known[key] for key in ("source", "precision", "reduce", "options")}
    provenance["level"] = "crop" if deep_profiler else level
    left_out = left_out_of(folder)
    if left_out:
        warnings.warn(f"{len(left_out)} fields left out, the first: {left_out[0]}", stacklevel=3)
        provenance["left_out"] = left_out
    if deep_profiler:
        return write_deep_profiler(map(pd.read_parquet, parts), out, crops.crop_size, provenance)
    if level == "perturbation":
        table = consensus(pd.concat(map(pd.read_parquet, parts), ignore_index=True), within, reduce)
        write_profiles(table, out, provenance)
        return len(table)
    return write_joined(parts, out, provenance)


def _wait() -> None:
    if world_size() > 1:
        dist.barrier()


def default_device() -> str:
    """This rank's GPU where there is one, else `cpu`."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
