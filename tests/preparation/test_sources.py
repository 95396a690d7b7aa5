from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.preparation.sources import find_images, read_load_data


def test_perkin_elmer_names_become_wells_sites_and_channels(plate_of_tiffs):
    table = find_images(plate_of_tiffs)
    assert table[[schema.PLATE, schema.WELL, schema.SITE]].to_numpy().tolist() == [
        ["P1", "A01", "1"],
        ["P1", "A01", "2"],
        ["P1", "A02", "1"],
        ["P1", "B01", "1"],
    ]
    assert [c for c in table if c.startswith("Path_")] == [f"Path_{channel}" for channel in schema.CHANNELS]
    assert table["Path_DNA"][3].endswith("r02c01f01p01-ch5sk1fk1fl1.tiff")


def test_another_channel_map_is_obeyed(plate_of_tiffs):
    table = find_images(plate_of_tiffs, {5: "Mito", 4: "AGP", 3: "RNA", 2: "ER", 1: "DNA"})
    assert "-ch1" in table["Path_DNA"][0]
    with pytest.raises(ValueError, match=r"no number for \['ER'\]"):
        find_images(plate_of_tiffs, {1: "Mito", 2: "AGP", 3: "RNA", 5: "DNA"})


def test_the_gallerys_plate_folders_give_their_barcode(plate_of_tiffs):
    folder = plate_of_tiffs / "BR00117010__2020-11-08T18_18_00-Measurement1"
    folder.mkdir()
    (plate_of_tiffs / "P1").rename(folder / "Images")
    assert set(find_images(plate_of_tiffs)[schema.PLATE]) == {"BR00117010"}


def test_missing_files_stay_blank_and_stacks_are_refused(plate_of_tiffs):
    plate = plate_of_tiffs / "P1"
    (plate / "r01c01f01p01-ch4sk1fk1fl1.tiff").unlink()
    assert find_images(plate_of_tiffs)["Path_ER"].tolist()[0] == ""
    (plate / "r01c01f01p02-ch5sk1fk1fl1.tiff").touch()
    with pytest.raises(ValueError, match="planes of one field"):
        find_images(plate_of_tiffs)
    with pytest.raises(FileNotFoundError, match="no PerkinElmer images under"):
        find_images(plate_of_tiffs / "nowhere")


def test_two_folders_that_name_one_plate_are_refused(plate_of_tiffs):
    shutil.copytree(plate_of_tiffs / "P1", plate_of_tiffs / "again" / "P1")
    with pytest.raises(ValueError, match=r"have the field P1 A01 1 twice: give the plates different folders"):
        find_images(plate_of_tiffs)


def test_the_real_folder_has_three_fields_without_brightfield(real_data):
    table = find_images(real_data / "images")
    assert table[schema.PLATE].tolist() == ["AMG900", "DMSO", "FK-866"]
    assert table[schema.WELL].tolist() == ["N09", "D14", "D08"]
    assert not table.filter(like="Path_").map(lambda path: "-ch6" in path).to_numpy().any()


def test_load_data_gives_the_same_files_as_the_folder(load_data_csv, plate_of_tiffs):
    table = read_load_data(str(load_data_csv))
    found = find_images(plate_of_tiffs)
    for channel in schema.CHANNELS:
        column = f"Path_{channel}"
        assert [Path(p).resolve() for p in table[column]] == [Path(p).resolve() for p in found[column]]
    assert table[schema.BATCH].tolist() == ["b1"] * 4


def test_relative_patterns_give_relative_paths(load_data_csv, monkeypatch):
    monkeypatch.chdir(load_data_csv.parents[1])
    assert read_load_data("load_data/*.csv")["Path_DNA"][0].startswith("load_data/../images/P1/")


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet"])
def test_gz_and_parquet_read_the_same(load_data_csv, suffix):
    table = pd.read_csv(load_data_csv)
    path = load_data_csv.with_suffix("").with_suffix(suffix)
    table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_load_data(str(path)), read_load_data(str(load_data_csv)))


def test_root_replace_and_urls(load_data_csv):
    table = pd.read_csv(load_data_csv)
    paths = [f"PathName_Orig{channel}" for channel in schema.CHANNELS]
    moved = load_data_csv.with_name("moved.csv")
    table.assign(**dict.fromkeys(paths, "/home/ubuntu/bucket/P1/")).to_csv(moved, index=False)
    rebased = read_load_data(str(moved), replace=("/home/ubuntu/bucket", "s3://mine"))
    assert rebased["Path_DNA"][0] == "s3://mine/P1/r01c01f01p01-ch5sk1fk1fl1.tiff"
    table.assign(**dict.fromkeys(paths, "P1")).to_csv(moved, index=False)
    rooted = read_load_data(str(moved), root="s3://bucket/images/")
    assert rooted["Path_ER"][1] == "s3://bucket/images/P1/r01c01f02p01-ch4sk1fk1fl1.tiff"
    urls = {f"URL_Orig{channel}": f"gs://b/{channel}.tiff" for channel in schema.CHANNELS}
    table.drop(columns=paths).assign(**urls).to_csv(moved, index=False)
    assert read_load_data(str(moved))["Path_RNA"].tolist() == ["gs://b/RNA.tiff"] * 4


def test_any_file_system_of_fsspec_will_do(load_data_csv):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/gallery/plate/load_data.csv", load_data_csv.read_bytes())
    table = read_load_data("memory://gallery/*/load_data.csv", root="memory://gallery")
    assert table["Path_DNA"][0] == "memory://gallery/../images/P1/r01c01f01p01-ch5sk1fk1fl1.tiff"


def test_repeated_rows_are_named_and_dropped_on_request(load_data_csv):
    table = pd.read_csv(load_data_csv)
    once = read_load_data(str(load_data_csv))
    pd.concat([table, table.iloc[[1]]]).to_csv(load_data_csv, index=False)
    with pytest.raises(
        ValueError, match=r"load_data.csv row 3 and .*load_data.csv row 6 .*P1 A01 2.*--duplicates drop"
    ):
        read_load_data(str(load_data_csv))
    pd.testing.assert_frame_equal(read_load_data(str(load_data_csv), duplicates="drop"), once)


def test_rows_that_contradict_each_other_are_never_dropped(load_data_csv):
    table = pd.read_csv(load_data_csv)
    other = table.iloc[[1]].assign(FileName_OrigER="else.tiff")
    pd.concat([table, other]).to_csv(load_data_csv, index=False)
    for duplicates in ("error", "drop"):
        with pytest.raises(ValueError, match=r"row 3 and .* row 6 .*they name different files"):
            read_load_data(str(load_data_csv), duplicates=duplicates)


def test_what_load_data_lacks_is_named(load_data_csv):
    table = pd.read_csv(load_data_csv)
    table.drop(columns="FileName_OrigER").to_csv(load_data_csv, index=False)
    with pytest.raises(
        ValueError, match=r"no columns FileName_OrigER.*its channels are \['AGP', 'DNA', 'Mito', 'RNA'\]"
    ):
        read_load_data(str(load_data_csv))
    table.drop(columns="Metadata_Plate").to_csv(load_data_csv, index=False)
    with pytest.raises(KeyError, match="Metadata_Plate"):
        read_load_data(str(load_data_csv))
    with pytest.raises(FileNotFoundError, match="no load_data file matches"):
        read_load_data(str(load_data_csv.parent / "*.tsv"))
