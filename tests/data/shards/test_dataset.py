from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.data.shards import dataset
from morphoclip.data.shards.intensities import percentile_column
from morphoclip.data.shards.split_files import write_split


def test_every_crop_is_the_one_written(screen):
    data = ShardDataset(screen)
    size = data.shape[1]
    for item in range(len(data)):
        sample = data[item]
        field = int(data.index["field"][item])
        pixels = np.random.default_rng(field).integers(100, 5000, (5, size, 4 * size), np.uint16)
        x = int(data.index["x"][item])
        np.testing.assert_array_equal(sample.image, pixels[:, :, x : x + size])


def test_many_rows_are_read_in_any_order_into_a_buffer(screen):
    data = ShardDataset(screen)
    items = np.random.default_rng(0).permutation(len(data))[:50]
    out = np.zeros((50, *data.shape), np.uint16)
    assert data.read(items, out) is out
    for place, item in enumerate(items):
        np.testing.assert_array_equal(out[place], data[item].image)


def test_a_split_is_a_view_of_the_index(make_screen):
    folder = make_screen()
    write_split(folder, "odd", np.arange(1, 20, 2))
    everything, odd = ShardDataset(folder), ShardDataset(folder, split="odd")
    assert [odd[i].sample for i in range(len(odd))] == list(range(1, 20, 2))
    np.testing.assert_array_equal(odd[3].image, everything[7].image)
    with pytest.raises(FileNotFoundError, match=r"no split 'train'.*'odd'"):
        ShardDataset(folder, split="train")
    with pytest.raises(IndexError):
        odd[10]


def test_the_index_is_mapped_and_not_copied(screen):
    column = ShardDataset(screen).index["offset"]
    assert not column.flags.owndata
    assert not column.flags.writeable


@pytest.mark.parametrize("scale_by", ["field", "plate", "negcon"])
def test_scaling_is_by_the_median_of_the_fields_it_names(screen, scale_by):
    data = ShardDataset(screen, scale_by=scale_by, low_percentile=1, high_percentile=99.99)
    fields = data.fields
    for item in range(0, len(data), 7):
        sample = data[item]
        row = fields.iloc[data.index["field"][item]]
        chosen = fields[fields[schema.PLATE] == row[schema.PLATE]]
        if scale_by == "field":
            chosen = fields.iloc[[data.index["field"][item]]]
        if scale_by == "negcon":
            chosen = chosen[chosen[schema.CONTROL_TYPE] == "negcon"]
        for bound, percentile in ((sample.low, 1), (sample.high, 99.99)):
            expected = [chosen[percentile_column(percentile, channel)].median() for channel in data.channels]
            np.testing.assert_allclose(bound, expected, rtol=1e-6)


def test_a_plate_without_negcon_is_named_only_where_it_matters(make_screen, rows_of_screen):
    rows = [row for row in rows_of_screen if (row[schema.PLATE], row[schema.CONTROL_TYPE]) != ("b1p2", "negcon")]
    folder = make_screen(rows)
    assert len(ShardDataset(folder, scale_by="plate")) == 4 * len(rows)
    with pytest.raises(ValueError, match=r"plate b1p2 has no negcon.*scale_by=field"):
        ShardDataset(folder, scale_by="negcon")
    keep = np.flatnonzero(np.repeat([row[schema.PLATE] != "b1p2" for row in rows], 4))
    write_split(folder, "rest", keep)
    assert len(ShardDataset(folder, "rest", scale_by="negcon")) == len(keep)


def test_an_unknown_scaling_or_percentile_is_named(screen):
    with pytest.raises(ValueError, match=r"percentile 2 is not stored.*0\.01, 0\.1, 1, 50"):
        ShardDataset(screen, low_percentile=2)
    with pytest.raises(ValueError, match="'well': use field, plate or negcon"):
        ShardDataset(screen, scale_by="well")


def test_a_flipped_byte_names_shard_and_sample(make_screen):
    folder = make_screen()
    data = ShardDataset(folder)
    path = folder / "shards" / data.manifest["shards"][1]["name"]
    row = int(np.flatnonzero(data.index["shard"] == 1)[2])
    with path.open("r+b") as file:
        file.seek(data.index["offset"][row] + 30)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(ValueError, match=rf"{path.name}: sample {row:09d} fails its checksum"):
        data[row]
    assert data[row + 1].image.any()


def test_a_shard_cut_off_or_missing_is_named(make_screen):
    folder = make_screen()
    data = ShardDataset(folder)
    first, second = (folder / "shards" / shard["name"] for shard in data.manifest["shards"][:2])
    with first.open("r+b") as file:
        file.truncate(data.index["offset"][1] + 10)
    with pytest.raises(ValueError, match=rf"{first.name}: sample 000000001 is truncated"):
        data[1]
    second.unlink()
    with pytest.raises(FileNotFoundError, match=f"{second.name} is missing"):
        data[int(np.flatnonzero(data.index["shard"] == 1)[0])]


def test_file_handles_are_bounded(screen, monkeypatch):
    monkeypatch.setattr(dataset, "OPEN_SHARDS", 2)
    data = ShardDataset(screen)
    assert len(data.manifest["shards"]) > 3
    for item in range(len(data)):
        data.read([item])
        assert len(data._files) <= 2
    data.close()
    assert data.read([0]).any()


def test_it_pickles_small_and_reads_the_same(screen):
    data = ShardDataset(screen, scale_by="plate")
    data.read([0])
    state = pickle.dumps(data)
    assert len(state) < 1000
    other = pickle.loads(state)
    np.testing.assert_array_equal(other[9].image, data[9].image)
    np.testing.assert_array_equal(other[9].low, data[9].low)


def in_a_fork(check: Callable[[], bool]) -> bool:
    """Whether `check()` holds in a forked process, which has half a minute."""
    process = multiprocessing.get_context("fork").Process(target=lambda: os._exit(0 if check() else 1))
    process.start()
    process.join(30)
    process.kill()
    process.join()
    return process.exitcode == 0


def test_a_forked_process_goes_on_reading_whatever_other_threads_were_doing(screen):
    data = ShardDataset(screen)
    expected = data.read([0, 300])
    held, done = threading.Event(), threading.Event()

    def hold_the_handles() -> None:
        with data._files_lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold_the_handles)
    thread.start()
    held.wait()
    try:
        assert in_a_fork(lambda: np.array_equal(data.read([0, 300]), expected))
    finally:
        done.set()
        thread.join()
    np.testing.assert_array_equal(data.read([0, 300]), expected)


def test_codes_follow_sorted_values_whatever_the_order_of_the_fields(make_screen, rows_of_screen):
    forward = ShardDataset(make_screen(rows_of_screen, name="forward"))
    order = np.random.default_rng(1).permutation(len(rows_of_screen))
    shuffled = ShardDataset(make_screen([rows_of_screen[i] for i in order], name="shuffled"))
    pd.testing.assert_frame_equal(forward.table.frame, shuffled.table.frame)
    for name in ("plate", "well", "position", "perturbation", "condition", "is_control"):
        np.testing.assert_array_equal(getattr(forward.codes, name)[order], getattr(shuffled.codes, name))
    plates = sorted({row[schema.PLATE] for row in rows_of_screen})
    sample = forward[0]
    assert plates[sample.plate] == rows_of_screen[0][schema.PLATE]
    assert sample.position == 0
    assert sample.is_control
    assert forward.table.frame[schema.PERTURBATION][sample.condition] == "DMSO"


def test_positions_are_the_same_place_on_any_plate_format(screen):
    codes = ShardDataset(screen).codes
    names = ShardDataset(screen).fields[schema.WELL]
    assert codes.position[names == "B03"].tolist() == [48 + 2] * (names == "B03").sum()


def test_statistics_of_a_split_use_its_own_pixels(make_screen):
    folder = make_screen()
    rows = np.arange(0, 40)
    write_split(folder, "some", rows)
    data = ShardDataset(folder, split="some")
    low, high = (bound[:, :, None, None] for bound in data.intensities(np.arange(len(data))))
    scaled = np.clip((data.read(np.arange(len(data))) - low) / (high - low), 0, 1)
    mean, std = data.channel_statistics()
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-5)
    whole = ShardDataset(folder)
    np.testing.assert_allclose(whole.channel_statistics()[0], whole.manifest["statistics"]["field 0.1-99.9"]["mean"])
