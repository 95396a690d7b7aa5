from __future__ import annotations

import threading
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.data.loading.loader import Buffers, Loader
from morphoclip.data.sampling.mixture import Mixture
from morphoclip.data.sampling.samplers import EpochSampler, Uniform
from morphoclip.data.shards.index import INDEX_COLUMNS
from morphoclip.data.shards.intensities import percentile_column
from morphoclip.data.shards.manifest import FORMAT_VERSION


@pytest.fixture(scope="module")
def mixture(screen) -> Mixture:
    return Mixture([ShardDataset(screen)])


def loader(mixture: Mixture, workers: int) -> Loader:
    return Loader(mixture, EpochSampler(Uniform(mixture, 30, seed=0)), workers)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_that_are_kept_are_never_overwritten(mixture, workers):
    kept = list(loader(mixture, workers))
    assert len(kept) == 11
    for batch, items in zip(kept, EpochSampler(Uniform(mixture, 30, seed=0)), strict=True):
        expected = mixture[items]
        for name in ("images", "low", "high", "sample", "well", "condition"):
            np.testing.assert_array_equal(getattr(batch, name).numpy(), getattr(expected, name).numpy())


@pytest.mark.parametrize("workers", [0, 4])
def test_a_loop_that_lets_go_reuses_its_buffers(mixture, workers):
    places = [batch.images.data_ptr() for batch in loader(mixture, workers)]
    assert len(set(places)) <= 5 < len(places)


def test_a_buffer_is_taken_again_only_when_its_last_view_is_gone():
    buffers = Buffers(keep=4)
    first = buffers.take((2, 3))
    view = first[1:]
    address = first.ctypes.data
    del first
    assert buffers.take((2, 3)).ctypes.data != address
    del view
    assert buffers.take((2, 3)).ctypes.data == address
    assert buffers.take((4, 3)).shape == (4, 3)


def test_a_loop_left_early_leaves_no_thread(mixture):
    before = threading.active_count()
    for _ in loader(mixture, 3):
        break
    assert threading.active_count() == before


class Slow:
    """A plan that takes its time."""

    steps = 6

    def rows(self, epoch: int, step: int) -> np.ndarray:
        time.sleep(0.1)
        return np.arange(8) + 8 * step


def test_the_next_batches_are_drawn_while_the_caller_works(mixture):
    batches, waited = iter(Loader(mixture, EpochSampler(Slow()), num_workers=1)), []
    for step in range(Slow.steps):
        start = time.perf_counter()
        batch = next(batches)
        waited.append(time.perf_counter() - start)
        assert batch.sample.tolist() == list(range(8 * step, 8 * step + 8))
        time.sleep(0.3)
    assert sorted(waited)[Slow.steps // 2] < 0.09
    assert next(batches, None) is None


def anonymous_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024


def test_ten_million_rows_open_in_half_a_second_without_being_copied(tmp_path):
    """A synthetic index of 10^7 crops of 10^5 fields: 400 MB on disk; reading a row touches only that row."""
    rows, fields = 10**7, 10**5
    (tmp_path / "shards").mkdir()
    types = {name: dtype for name, _, dtype in INDEX_COLUMNS}
    columns = {name: np.zeros(rows, dtype) for name, dtype in types.items()}
    columns["field"] = np.repeat(np.arange(fields, dtype=np.int32), rows // fields)
    table = pa.table(columns)
    with pa.OSFile(str(tmp_path / "index.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    del columns, table
    bounds = {percentile_column(p, c): np.full(fields, float(p)) for p in (0.1, 99.9) for c in schema.CHANNELS}
    names = {schema.PLATE: np.repeat([f"P{i}" for i in range(100)], fields // 100), schema.WELL: "A01"}
    pd.DataFrame(names | bounds).to_parquet(tmp_path / "fields.parquet")
    (tmp_path / "manifest.json").write_text(
        f'{{"format_version": {FORMAT_VERSION}, "channels": {list(schema.CHANNELS)}, "codec": "blosc", "crop_size": 64,'
        f'"pixel_size_um": 1.0, "counts": {{"fields": {fields}}}, "shards": [], "statistics": {{}}}}'.replace("'", '"')
    )
    ShardDataset(tmp_path)  # libraries and page cache are warm, as they are for every worker after the first
    memory, clock, start = anonymous_bytes(), time.process_time(), time.perf_counter()
    dataset = ShardDataset(tmp_path)
    seconds = min(time.process_time() - clock, time.perf_counter() - start)  # other work on the machine is not ours
    assert len(dataset) == rows
    assert dataset.fields_of([9_999_999]).tolist() == [fields - 1]
    assert seconds < 0.5
    assert anonymous_bytes() - memory < 100e6
    assert len(dataset.present) == fields
    assert anonymous_bytes() - memory < 100e6
