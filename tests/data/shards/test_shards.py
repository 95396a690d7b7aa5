from __future__ import annotations

import io
import json
import tarfile
import zlib

import numpy as np
import pandas as pd
import pytest
import webdataset

from morphoclip import schema
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.data.shards.codecs import get_codec
from morphoclip.data.shards.intensities import describe_field
from morphoclip.data.shards.manifest import FORMAT_VERSION, read_manifest

ROW = {schema.PLATE: "P1", schema.WELL: "A01", schema.SITE: "1"}


def crop(seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, (5, size, size), np.uint16)


@pytest.mark.parametrize("codec", ["raw", "blosc"])
def test_plain_webdataset_reads_the_tars(make_screen, codec):
    folder = make_screen(codec=codec)
    dataset = ShardDataset(folder)
    shards = sorted(map(str, (folder / "shards").glob("*.tar")))
    assert len(shards) > 2
    source = webdataset.WebDataset(shards, shardshuffle=False)
    extension = get_codec(codec).extension
    if codec == "blosc":  # a plain npy webdataset decodes by itself
        from numcodecs import blosc

        source = source.decode(
            webdataset.handle_extension("blosc", lambda data: np.frombuffer(blosc.decompress(data), np.uint16))
        )
    else:
        source = source.decode()
    count = 0
    for item, entry in enumerate(source):
        image = entry[extension].reshape(entry["json"]["shape"])
        sample = dataset[item]
        np.testing.assert_array_equal(image, sample.image)
        field = dataset.fields.iloc[entry["json"]["field"]]
        assert entry["json"]["Metadata_Well"] == field["Metadata_Well"]
        assert entry["__key__"] == f"{item:09d}"
        count += 1
    assert count == len(dataset)


def test_the_index_says_what_the_tars_hold(screen):
    index = ShardDataset(screen).index
    manifest = read_manifest(screen)
    row = 0
    for number, shard in enumerate(manifest["shards"]):
        path = screen / "shards" / shard["name"]
        assert path.stat().st_size == shard["nbytes"]
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.name.endswith(".blosc")]
            assert len(members) == shard["samples"]
            for member in members:
                data = tar.extractfile(member).read()
                label = json.load(tar.extractfile(f"{row:09d}.json"))
                assert index["shard"][row] == number
                assert index["offset"][row] == member.offset_data
                assert index["nbytes"][row] == len(data)
                assert index["crc32"][row] == zlib.crc32(data)
                assert [index[name][row] for name in ("field", "y", "x")] == [label[n] for n in ("field", "y", "x")]
                row += 1
    assert row == len(index["shard"]) == manifest["counts"]["samples"]


def test_statistics_are_those_of_all_pixels(screen):
    dataset = ShardDataset(screen)
    images = dataset.read(np.arange(len(dataset))).astype(float)
    low, high = (bound[:, :, None, None] for bound in dataset.intensities(np.arange(len(dataset))))
    scaled = np.clip((images - low) / (high - low), 0, 1)
    for key, pixels in (("raw", images), ("field 0.1-99.9", scaled)):
        stored = dataset.manifest["statistics"][key]
        np.testing.assert_allclose(stored["mean"], pixels.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(stored["std"], pixels.std((0, 2, 3)), rtol=1e-6)


def test_an_exception_leaves_nothing(tmp_path):
    def fail() -> None:
        with ShardWriter(tmp_path / "dataset") as writer:
            writer.add(crop(), ROW, 0, 0)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_no_crops_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="no crops"), ShardWriter(tmp_path / "dataset"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_bears_the_final_name_before_the_end_and_a_killed_writer_is_swept_up(tmp_path):
    partial = tmp_path / "dataset.partial"
    (partial / "shards").mkdir(parents=True)
    (partial / "shards" / "000000.tar").write_bytes(b"left by a killed run")
    with ShardWriter(tmp_path / "dataset") as writer:
        writer.add(crop(), ROW, 0, 0)
        assert not (tmp_path / "dataset").exists()
    assert not partial.exists()
    assert len(ShardDataset(tmp_path / "dataset")) == 1


def test_two_writers_of_one_dataset_and_overwriting_are_refused(tmp_path):
    with ShardWriter(tmp_path / "dataset") as writer:
        writer.add(crop(), ROW, 0, 0)
        with pytest.raises(FileExistsError, match="another process is writing"):
            ShardWriter(tmp_path / "dataset")
    with pytest.raises(FileExistsError, match="never overwritten"):
        ShardWriter(tmp_path / "dataset")


def test_a_folder_without_manifest_is_no_dataset(make_screen, tmp_path):
    folder = make_screen()
    (folder / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json.*incomplete.*morphoclip data prepare"):
        ShardDataset(folder)
    with pytest.raises(FileNotFoundError, match="no dataset folder"):
        ShardDataset(tmp_path / "nowhere")


def test_a_newer_format_is_refused_by_name(make_screen):
    folder = make_screen()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format_version"] = FORMAT_VERSION + 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"format {FORMAT_VERSION + 1}.*upgrade morphoclip"):
        ShardDataset(folder)


@pytest.mark.parametrize(
    ("image", "row", "message"),
    [
        (crop(size=9), ROW, "crop is .5, 9, 9."),
        (crop().astype(np.float32), ROW, "float32"),
        (crop()[:4], ROW, "crop is .4, 8, 8."),
        (crop(), {schema.WELL: "A01"}, "no Metadata_Plate"),
        (crop(), ROW | {"qc": 1.0, schema.SITE: "2"}, "differ in columns.*qc"),
        (crop(), ROW | {schema.GENE: "PLK1"}, "different Metadata_gene"),
    ],
)
def test_a_crop_that_does_not_belong_is_refused(tmp_path, image, row, message):
    with ShardWriter(tmp_path / "dataset") as writer:
        writer.add(crop(), ROW, 0, 0)
        with pytest.raises(ValueError, match=message):
            writer.add(image, row, 0, 0)


def test_a_field_without_percentiles_takes_those_of_its_first_crop(tmp_path):
    with ShardWriter(tmp_path / "dataset") as writer:
        for seed in range(2):
            writer.add(crop(seed), dict(ROW), 0, 0)
    fields = pd.read_parquet(tmp_path / "dataset" / "fields.parquet")
    expected = describe_field(crop(0), schema.CHANNELS)
    assert len(fields) == 1
    assert fields[list(expected)].iloc[0].to_dict() == pytest.approx(expected)
    writer = ShardWriter(tmp_path / "other")
    with pytest.raises(ValueError, match="no percentiles"):
        writer.add_field(ROW)
    writer.abort()


def test_the_same_calls_write_the_same_bytes(make_screen):
    one, two = make_screen(name="one"), make_screen(name="two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 4
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes(), file


def test_raw_members_are_npy_files(make_screen):
    folder = make_screen(codec="raw")
    with tarfile.open(folder / "shards" / "000000.tar") as tar:
        image = np.load(io.BytesIO(tar.extractfile("000000000.npy").read()))
    np.testing.assert_array_equal(image, ShardDataset(folder)[0].image)
