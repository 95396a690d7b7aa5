"""Two ranks embed each their plates: the table is that of one process, and rank 0 has it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.experiment.embed_by_ranks import PARTS, embed_by_ranks, rows_of_plates
from morphoclip.models.classical import IntensityStatistics
from morphoclip.profiling.screen import embed_screen
from tests.methods.resume import small_screen


def embed(dataset: ShardDataset, folder: Path) -> pd.DataFrame | None:
    return embed_by_ranks(IntensityStatistics(list(dataset.channels)), dataset, folder, device="cpu")


def embed_to_file(source: str, out: str) -> None:
    channels = list(ShardDataset(source).channels)
    embed_screen(IntensityStatistics(channels), source, out, "site", progress=False)


def run_rank(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    table = embed(ShardDataset(f"{folder}/screen"), Path(folder))
    assert (table is None) == (rank == 1)
    if table is not None:
        table.to_parquet(f"{folder}/found.parquet")
    embed_to_file(f"{folder}/screen", f"{folder}/by_two.parquet")
    dist.destroy_process_group()


def test_two_ranks_give_the_table_of_one(tmp_path):
    small_screen(tmp_path / "screen")
    dataset = ShardDataset(tmp_path / "screen")
    expected = embed(dataset, tmp_path)
    torch.multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    found = pd.read_parquet(tmp_path / "found.parquet")
    metadata, features = schema.split_columns(expected)
    pd.testing.assert_frame_equal(found[metadata], expected[metadata])
    np.testing.assert_allclose(found[features], expected[features], rtol=1e-5, atol=1e-6)
    assert not (tmp_path / PARTS).exists()
    embed_to_file(f"{tmp_path}/screen", f"{tmp_path}/by_one.parquet")
    assert (tmp_path / "by_two.parquet").read_bytes() == (tmp_path / "by_one.parquet").read_bytes()


def test_ranks_share_whole_plates_evenly(tmp_path):
    small_screen(tmp_path / "screen")
    dataset = ShardDataset(tmp_path / "screen")
    parts = [rows_of_plates(dataset, rank, 3) for rank in range(3)]
    assert sorted(np.concatenate(parts)) == list(range(len(dataset)))
    plates = [set(dataset.fields[schema.PLATE].iloc[dataset.index["field"][rows]]) for rows in parts]
    assert sum(map(len, plates)) == dataset.fields[schema.PLATE].nunique()
