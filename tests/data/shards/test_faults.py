"""What can go wrong with a dataset on disk, made to go wrong."""

from __future__ import annotations

import errno
import logging
import resource

import numpy as np
import pyarrow as pa
import pytest

from morphoclip import schema
from morphoclip.data import CellDataModule, ShardDataset, ShardWriter
from morphoclip.data.sampling.mixture import Mixture, _donors
from morphoclip.data.shards.dataset import SampleError
from morphoclip.data.shards.index import map_index


def damage(folder, row: int) -> None:
    data = ShardDataset(folder)
    path = folder / "shards" / data.manifest["shards"][data.index["shard"][row]]["name"]
    with path.open("r+b") as file:
        file.seek(int(data.index["offset"][row]) + 40)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 16]))


def edit_index(folder, column: str, row: int, value: int) -> None:
    columns = {name: values.copy() for name, values in map_index(folder / "index.arrow").items()}
    columns[column][row] = value
    table = pa.table(columns)
    with pa.OSFile(str(folder / "index.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("codec", ["blosc", "raw"])
def test_a_row_past_the_end_of_its_shard_is_named(make_screen, codec):
    folder = make_screen(codec=codec)
    edit_index(folder, "offset", 3, 10**9)
    with pytest.raises(
        SampleError, match=r"000000.tar: sample 000000003 is truncated \(0 of \d+ bytes\).*copy it again"
    ):
        ShardDataset(folder).read([3])


@pytest.mark.parametrize("codec", ["raw", "sqrt", "png16", "tiff"])
def test_a_flipped_byte_is_found_in_every_codec(make_screen, codec):
    folder = make_screen(codec=codec)
    damage(folder, 7)
    data = ShardDataset(folder)
    with pytest.raises(SampleError, match="sample 000000007 fails its checksum"):
        data[7]
    assert data[8].image.any()


def test_a_bad_sample_ends_the_run_by_default(make_screen):
    folder = make_screen()
    damage(folder, 7)
    for workers in (0, 2):
        loader = CellDataModule([{"root": folder}], 44, num_workers=workers).train_dataloader()
        with pytest.raises(SampleError, match="sample 000000007"):
            list(loader)


@pytest.mark.parametrize("workers", [0, 3])
def test_skipped_samples_are_replaced_logged_and_counted(make_screen, caplog, workers):
    folder = make_screen()
    damage(folder, 7)
    damage(folder, 200)
    datamodule = CellDataModule([{"root": folder}], 44, num_workers=workers, on_bad_sample="skip")
    with caplog.at_level(logging.WARNING):
        batches = list(datamodule.train_dataloader())
    assert datamodule.skipped == 2
    assert sorted(record.getMessage().split("sample ")[1][:9] for record in caplog.records) == [
        "000000007",
        "000000200",
    ]
    assert len(batches) == 8
    dataset = ShardDataset(folder)
    for batch in batches:
        assert batch.images.shape[0] == 44
        rows = batch.sample.tolist()
        assert not {7, 200} & set(rows)
        for place, row in enumerate(rows):  # pixels, intensities and codes are those of the crop that is shown
            sample = dataset[row]
            np.testing.assert_array_equal(batch.images[place].numpy(), sample.image)
            np.testing.assert_array_equal(batch.low[place].numpy(), sample.low)
            assert batch.well[place] == sample.well


def test_a_bag_stays_with_its_condition_when_a_crop_is_skipped(make_screen):
    folder = make_screen()
    data = ShardDataset(folder)
    for row in range(0, len(data), 5):
        damage(folder, row)
    options = {"sampler": "bags", "sampler_options": {"bag_size": 4}, "on_bad_sample": "skip"}
    datamodule = CellDataModule([{"root": folder}], 6, **options)
    for batch in datamodule.train_dataloader():
        conditions = data.codes.condition[data.fields_of(batch.sample.numpy())]
        assert (conditions == batch.condition.numpy()[:, None]).all()
        assert (batch.sample % 5 != 0).all()
    assert datamodule.skipped > 10


def test_a_missing_shard_is_skipped_sample_by_sample(make_screen):
    folder = make_screen()
    data = ShardDataset(folder)
    (folder / "shards" / data.manifest["shards"][1]["name"]).unlink()
    mixture = Mixture([data], on_bad_sample="skip")
    batch = mixture[np.arange(len(data))]
    gone = data.index["shard"] == 1
    assert mixture.skipped == gone.sum()
    assert not np.isin(batch.sample.numpy(), np.flatnonzero(gone)).any()
    with pytest.raises(SampleError, match="every sample of a batch is damaged"):
        mixture[np.flatnonzero(gone)]


def test_donors_come_from_the_bag_first_and_from_another_if_need_be():
    bad = np.array([[False, True, False], [True, True, True], [True, False, False]])
    assert _donors(bad).tolist() == [0, 2, 2, 7, 7, 8, 7, 7, 8]
    assert _donors(np.array([True, False, True])).tolist() == [1, 1, 1]


def test_an_unknown_policy_is_named(screen):
    with pytest.raises(ValueError, match="on_bad_sample='ignore': use error or skip"):
        Mixture([ShardDataset(screen)], on_bad_sample="ignore")


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path):
    crop = np.random.default_rng(0).integers(0, 60000, (5, 32, 32), np.uint16)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write() -> None:
        with ShardWriter(tmp_path / "dataset", codec="raw") as writer:
            for site in range(100):
                row = {schema.PLATE: "P1", schema.WELL: "A01", schema.SITE: str(site)}
                writer.add(crop, row, 0, 0)

    resource.setrlimit(
        resource.RLIMIT_FSIZE, (200_000, hard)
    )  # the kernel refuses what goes beyond, as a full disk does
    try:
        with pytest.raises(OSError, match=r"the disk is full, cannot write .*dataset: free some space") as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
    write()
    assert len(ShardDataset(tmp_path / "dataset")) == 100
