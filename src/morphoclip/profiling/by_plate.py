"""Profile tables of large screens: a file per plate, resumed where a run stopped, shared among ranks, joined at the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from morphoclip import schema
from morphoclip.distributed import rank, world_size
from morphoclip.files import write_atomically
from morphoclip.models import Encoder
from morphoclip.profiling.embedding import tabulate
from morphoclip.profiling.encoding import CropSource, Run, encoded

SETTINGS, LEFT_OUT = "settings.json", ".left_out.json"


def parts_folder(out: str | Path) -> Path:
    """The folder beside `out` that holds the plates' tables until all are done."""
    out = Path(out)
    return out.with_name(f".{out.name}.plates")


def begin_parts(folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Make the folder of parts, or check that the one there was begun with the same settings.

    Args:
        settings: plain JSON: what the tables depend on.

    Returns:
        Names of the parts that are done.

    Raises:
        ValueError: the folder was begun with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known, settings = folder / SETTINGS, json.loads(json.dumps(settings))
    if known.is_file():
        before = json.loads(known.read_text(encoding="utf-8"))
        if other := [key for key in sorted(before | settings) if before.get(key) != settings.get(key)]:
            raise ValueError(
                f"{folder} holds plates that were embedded with another {', '.join(other)}: give the settings of then to go "
                "on, or remove that folder to start anew"
            )
    else:
        with write_atomically(known) as partial:
            partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return sorted(path.name for path in folder.glob("*.parquet"))


def part_names(crops: CropSource) -> dict[int, str]:
    """Plate code -> name of its part, in the order of the final table, for plates with something to embed."""
    codes = np.unique(crops.plate[crops.visited])
    first = [np.flatnonzero(crops.plate == code)[0] for code in codes]
    plates = crops.fields[schema.PLATE].astype(str).iloc[first] if schema.PLATE in crops.fields else [""] * len(codes)
    return {
        int(code): f"{code:06d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', plate)}.parquet"
        for code, plate in zip(codes, plates, strict=True)
    }


def deal(sizes: np.ndarray, ranks: int) -> np.ndarray:
    """The rank of each plate: each next largest goes to the rank with the fewest crops so far."""
    crops, owner = np.zeros(ranks, np.int64), np.empty(len(sizes), np.int64)
    for largest in np.argsort(-sizes, kind="stable"):
        owner[largest] = crops.argmin()
        crops[owner[largest]] += sizes[largest]
    return owner


def write_plates(
    encoder: Encoder,
    crops: CropSource,
    folder: Path,
    level: str,
    run: Run,
    *,
    reduce: str = "mean",
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write this rank's plates of `crops` that have no part in `folder` yet, each whole or not at all.

    The stream of batches runs on from plate to plate, so that none waits for the next plate to be opened.

    Args:
        level: crop, site or well.
        say: called with a line for each plate that is done.
    """
    names = part_names(crops)
    left = np.array([code for code, name in names.items() if not (folder / name).is_file()], np.int64)
    own = left[deal(crops.crops_per_plate()[left], world_size()) == rank()]
    if not len(own):
        return
    mine = crops.only(np.isin(crops.plate, own))
    began = time.monotonic()
    stream = encoded(encoder, mine, run, progress)
    for code, items in groupby(stream, key=lambda item: int(mine.plate[item[0].field[0]])):
        table = tabulate(items, mine, level, reduce)
        left_out = {key: reason for key, reason in _quarantine(mine).items() if mine.plate[key] == code}
        if left_out:
            with write_atomically(folder / f"{names[code]}{LEFT_OUT}") as partial:
                partial.write_text(json.dumps(list(left_out.values())) + "\n", encoding="utf-8")
        with write_atomically(folder / names[code]) as partial:
            table.to_parquet(partial, compression="zstd", index=False)
        now = time.monotonic()
        fields = int((mine.plate[mine.visited] == code).sum())
        if say is not None:
            plate = Path(names[code]).stem.partition("-")[2]
            minutes = (now - began) / 60
            say(
                f"plate {plate}: {fields} fields, {len(table)} rows in {minutes:.1f} min, {fields / (now - began):.1f} fields/s"
            )
        began = now


def _quarantine(crops: CropSource) -> dict[int, str]:
    return getattr(crops, "quarantine", {})


def parts_of(folder: Path, names: Mapping[int, str]) -> list[Path]:
    """The tables of the plates, in order; a plate without a readable field has none.

    Raises:
        ValueError: no plate has a table.
    """
    found = [folder / name for _, name in sorted(names.items()) if (folder / name).is_file()]
    if not found:
        raise ValueError("there are no crops to embed: the split is empty or no field could be read")
    return found


def left_out_of(folder: Path) -> list[str]:
    """Why fields were left out, one line each."""
    return [
        line for path in sorted(folder.glob(f"*{LEFT_OUT}")) for line in json.loads(path.read_text(encoding="utf-8"))
    ]
