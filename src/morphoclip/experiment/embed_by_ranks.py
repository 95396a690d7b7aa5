"""Well profiles of a dataset, each rank those of its plates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from morphoclip import schema

if TYPE_CHECKING:
    import torch

    from morphoclip.data import ShardDataset
    from morphoclip.models import Encoder

PARTS = "parts"


def embed_by_ranks(
    encoder: Encoder, images: ShardDataset, folder: Path, *, device: torch.device | str, num_workers: int = 0
) -> pd.DataFrame | None:
    """Well profiles by an encoder that is the same on all ranks; on ranks other than the first None.

    A rank with fewer plates than others waits for them. Parts lie in `folder`/parts meanwhile.

    Args:
        folder: of the run; all ranks see it.
        num_workers: threads that read and decode ahead.
    """
    import torch.distributed as dist

    from morphoclip.data import ShardDataset
    from morphoclip.distributed import rank, world_size
    from morphoclip.profiling import embed, read_profiles, write_profiles
    from morphoclip.training.launch import on_rank_zero

    options: dict[str, Any] = {"device": device, "batch_size": 128, "num_workers": num_workers}
    if world_size() == 1:
        return embed(encoder, images, **options)
    parts = folder / PARTS
    on_rank_zero(lambda: shutil.rmtree(parts, ignore_errors=True))
    parts.mkdir(parents=True, exist_ok=True)
    rows = rows_of_plates(images, rank(), world_size())
    if len(rows):
        np.save(parts / f"rows{rank()}.npy", rows)
        own = ShardDataset(images.root, str(parts / f"rows{rank()}.npy"), *images.scaling)
        write_profiles(embed(encoder, own, progress=rank() == 0, **options), parts / f"{rank()}.parquet", {})
    dist.barrier()
    return joined([read_profiles(path) for path in sorted(parts.glob("*.parquet"))], parts) if rank() == 0 else None


def rows_of_plates(images: ShardDataset, number: int, ranks: int) -> np.ndarray:
    """The index rows of a rank's plates: each next largest plate goes to the rank with the fewest crops."""
    plates = [column for column in schema.PLATE_KEY if column in images.fields]
    plate_of_field = images.fields.groupby(plates, sort=True, dropna=False).ngroup().to_numpy(np.int64)
    plate = plate_of_field[images.index["field"][images.rows]]
    sizes = np.bincount(plate)
    crops, owner = np.zeros(ranks, np.int64), np.empty(len(sizes), np.int64)
    for largest in np.argsort(-sizes, kind="stable"):
        owner[largest] = crops.argmin()
        crops[owner[largest]] += sizes[largest]
    return images.rows[owner[plate] == number]


def joined(parts: list[pd.DataFrame], folder: Path) -> pd.DataFrame:
    """The parts as one process would order their wells; their folder is removed."""
    table = pd.concat(parts, ignore_index=True)
    wells = [column for column in schema.WELL_KEY if column in table]
    shutil.rmtree(folder, ignore_errors=True)
    return table.sort_values(wells, kind="stable", ignore_index=True)
