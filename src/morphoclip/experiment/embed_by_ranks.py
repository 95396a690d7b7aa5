"""Well profiles of a dataset, each rank those of its plates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

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
    import torch
    import torch.distributed as dist

    from morphoclip.distributed import rank, world_size
    from morphoclip.profiling import embed
    from morphoclip.profiling.by_plate import part_names, parts_of, write_plates
    from morphoclip.profiling.embedding import open_crops
    from morphoclip.profiling.encoding import Run
    from morphoclip.training.launch import on_rank_zero

    options: dict[str, Any] = {"batch_size": 128, "num_workers": num_workers}
    if world_size() == 1:
        return embed(encoder, images, device=device, **options)
    parts = folder / PARTS
    on_rank_zero(lambda: shutil.rmtree(parts, ignore_errors=True))
    parts.mkdir(parents=True, exist_ok=True)
    crops = open_crops(encoder, images, **options)
    write_plates(encoder, crops, parts, "well", Run(128, torch.device(device)), progress=rank() == 0)
    dist.barrier()
    if rank() != 0:
        return None
    table = pd.concat(map(pd.read_parquet, parts_of(parts, part_names(crops))), ignore_index=True)
    shutil.rmtree(parts, ignore_errors=True)
    return table


def rows_of_plates(images: ShardDataset, number: int, ranks: int) -> np.ndarray:
    """The index rows of a rank's plates, as they are dealt."""
    from morphoclip.profiling.by_plate import deal
    from morphoclip.profiling.crops import plate_codes

    plate = plate_codes(images.fields)[images.index["field"][images.rows]]
    return images.rows[deal(np.bincount(plate), ranks)[plate] == number]
