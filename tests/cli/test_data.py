from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.main import app
from morphoclip.data import ShardDataset
from morphoclip.data.shards.inspection import channel_statistics
from morphoclip.data.shards.split_files import read_split, write_split
from tests.data.shards.test_faults import damage


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def refuse(*words: object) -> str:
    result = CliRunner().invoke(app, ["data", *map(str, words)])
    assert result.exit_code != 0
    return " ".join(result.output.replace("│", " ").split())


def test_info_counts_a_plate_and_a_perturbation(screen):
    text = run("info", screen, "--rows", 50)
    assert "352 samples, 88 fields" in text
    assert "codec blosc" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["b1", "b1p1", "19", "19", "76"] in lines
    assert ["cpd-12", "4", "4", "16"] in lines
    assert ["DMSO", "12", "12", "48"] in lines
    assert ["compound", "76", "76", "304"] in [
        line.split() for line in run("info", screen, "--by", schema.MODALITY).splitlines()
    ]


def test_info_names_what_is_not_there(screen, tmp_path):
    assert "no column Metadata_colour" in refuse("info", screen, "--by", "Metadata_colour")
    assert "no dataset folder" in refuse("info", tmp_path / "nowhere")


def test_verify_finds_every_damaged_sample(make_screen):
    folder = make_screen()
    assert "352 samples, 0 problems" in run("verify", folder)
    damage(folder, 7)
    damage(folder, 300)
    text = refuse("verify", folder)
    assert "sample 000000007 fails its checksum" in text
    assert "sample 000000300 fails its checksum" in text
    assert "352 samples, 2 problems" in text


def test_a_url_stands_for_a_folder(make_screen, tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOCLIP_CACHE", str(tmp_path / "cache"))
    folder = make_screen()
    url = folder.as_uri()
    assert "352 samples, 88 fields" in run("info", url)
    assert "352 samples, 0 problems" in run("verify", url)
    run("subset", url, "--out", tmp_path / "few", "--crops-per-field", 1, "--codec", "raw")
    few, all_crops = ShardDataset(tmp_path / "few"), ShardDataset(folder)
    kept = [4 * field + x // 8 for field, x in enumerate(few.index["x"])]  # 4 crops a field, side by side
    np.testing.assert_array_equal(few.read(range(88)), all_crops.read(kept))
    damage(folder, 7)
    assert "sample 000000007 fails its checksum" in refuse("verify", url)
    assert "is not a local folder" in refuse("split", url, "--by", "plate")


def test_verify_finds_what_the_manifest_does_not_promise(make_screen):
    folder = make_screen()
    shards = ShardDataset(folder).manifest["shards"]
    with (folder / "shards" / shards[0]["name"]).open("ab") as file:
        file.write(b"more")
    (folder / "shards" / shards[1]["name"]).unlink()
    text = refuse("verify", folder)
    assert f"{shards[0]['name']} has {shards[0]['nbytes'] + 4} bytes, the manifest {shards[0]['nbytes']}" in text
    assert f"{shards[1]['name']} is missing" in text


@pytest.mark.parametrize("scale_by", ["field", "negcon"])
def test_stats_are_those_of_all_pixels_whatever_the_threads(make_screen, scale_by):
    folder = make_screen()
    write_split(folder, "some", np.arange(0, 352, 3))
    output = run("stats", folder, "--split", "some", "--scale-by", scale_by)
    found = json.loads(output[output.index("{") :])
    data = ShardDataset(folder, "some", scale_by)
    images = data.read(np.arange(len(data))).astype(float)
    low, high = (bound[:, :, None, None] for bound in data.intensities(np.arange(len(data))))
    scaled = np.clip((images - low) / (high - low), 0, 1)
    assert found["crops"] == len(data)
    for key, pixels in (("raw", images), (f"{scale_by} 0.1-99.9", scaled)):
        np.testing.assert_allclose(found[key]["mean"], pixels.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(found[key]["std"], pixels.std((0, 2, 3)), rtol=1e-6)
    assert [*channel_statistics(data, 1)][-1] == [*channel_statistics(data, 3)][-1]


def test_a_subset_holds_the_same_crops_of_the_chosen_fields(make_screen, tmp_path):
    folder = make_screen()
    write_split(folder, "odd", np.arange(1, 352, 2))
    out = tmp_path / "subset"
    assert "152 of 352 crops" in run(
        "subset", folder, "--out", out, "--where", 'Metadata_Batch == "b2" and Metadata_modality == "compound"'
    )
    old, new = ShardDataset(folder), ShardDataset(out)
    kept = np.flatnonzero((old.fields[schema.BATCH] == "b2") & (old.fields[schema.MODALITY] == "compound"))
    rows = np.flatnonzero(np.isin(old.index["field"], kept))
    np.testing.assert_array_equal(new.read(np.arange(len(new))), old.read(rows))
    pd.testing.assert_frame_equal(new.fields, old.fields.iloc[kept].reset_index(drop=True))
    for name in ("y", "x", "foreground", "crc32"):
        np.testing.assert_array_equal(new.index[name], old.index[name][rows])
    np.testing.assert_array_equal(rows[read_split(out, "odd")], rows[rows % 2 == 1])
    assert new.manifest["statistics"]["raw"] == [*channel_statistics(new)][-1][1]["raw"]
    assert "repacked" in new.manifest["made_by"]["arguments"]
    assert "b2p1" in run("info", out)
    assert "exists and is never overwritten" in refuse("subset", folder, "--out", out)


def test_a_subset_of_a_few_crops_a_field(screen, tmp_path):
    run("subset", screen, "--out", tmp_path / "two", "--crops-per-field", 2)
    data = ShardDataset(tmp_path / "two")
    assert np.bincount(data.index["field"]).tolist() == [2] * 88
    assert len(np.unique(data.index["x"])) == 4  # not the same two of every field
    assert "selects no crop" in refuse("subset", screen, "--out", tmp_path / "x", "--where", 'Metadata_Batch == "b9"')
    assert "cannot be evaluated" in refuse("subset", screen, "--out", tmp_path / "x", "--where", "Batch == 1")


@pytest.mark.parametrize("codec", ["raw", "png16", "sqrt"])
def test_repacking_there_and_back_gives_the_same_bytes(screen, tmp_path, codec):
    run("repack", screen, "--out", tmp_path / "there", "--codec", codec, "--workers", 2)
    there = ShardDataset(tmp_path / "there")
    old = ShardDataset(screen)
    assert there.manifest["codec"] == codec
    assert there.manifest["counts"] == old.manifest["counts"]
    items = np.arange(len(old))
    if codec == "sqrt":
        assert np.abs(there.read(items).astype(float) - old.read(items)).max() <= 4
        return
    run("repack", tmp_path / "there", "--out", tmp_path / "back", "--codec", "blosc", "--workers", 1)
    np.testing.assert_array_equal(ShardDataset(tmp_path / "back").index["crc32"], old.index["crc32"])
    assert ShardDataset(tmp_path / "back").manifest["statistics"] == old.manifest["statistics"]


def test_a_damaged_crop_stops_a_repack_and_leaves_nothing(make_screen, tmp_path):
    folder = make_screen()
    damage(folder, 9)
    assert "sample 000000009 fails its checksum" in refuse("repack", folder, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_split_writes_sets_that_share_no_plate(make_screen):
    folder = make_screen()
    run("split", folder, "--by", "plate", "--fractions", "train=0.5,val=0.5")
    data = [ShardDataset(folder, name) for name in ("train", "val")]
    plates = [set(part.fields.iloc[part.present][schema.PLATE]) for part in data]
    assert plates[0]
    assert plates[1]
    assert not plates[0] & plates[1]
    assert len(data[0]) + len(data[1]) == 352
    assert "add up to 1" in refuse("split", folder, "--by", "plate", "--fractions", "a=0.5,b=0.2")
