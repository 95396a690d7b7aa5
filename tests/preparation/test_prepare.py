from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
import tifffile

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.preparation import prepare_dataset
from morphoclip.preparation.command import main
from morphoclip.preparation.fields import bin_field, find_nuclei, read_field
from morphoclip.preparation.sources import find_images, read_load_data

OPTIONS = {"crop_size": 32, "pixel_size_um": 1.1, "workers": 1, "progress": False}


def pixels(sources: pd.DataFrame, row: int) -> np.ndarray:
    return read_field({channel: sources[f"Path_{channel}"][row] for channel in schema.CHANNELS})


def test_every_nucleus_becomes_a_crop_of_the_source_pixels(plate_of_tiffs, tmp_path):
    sources = find_images(plate_of_tiffs)
    dataset = ShardDataset(prepare_dataset(sources, tmp_path / "out", **OPTIONS))
    assert dataset.fields[schema.WELL].tolist() == ["A01", "A01", "A02", "B01"]
    assert len(dataset) == dataset.fields[schema.CELL_COUNT].sum() == 24
    for item in range(len(dataset)):
        row = dataset.index["field"][item]
        y, x = dataset.index["y"][item], dataset.index["x"][item]
        field = pixels(sources, row)
        np.testing.assert_array_equal(dataset[item].image, field[:, y : y + 32, x : x + 32])
        share = (field[0, y : y + 32, x : x + 32] > dataset.fields["otsu_DNA"][row]).mean()
        assert dataset.index["foreground"][item] == pytest.approx(share)
    assert dataset.pixel_size_um == 1.1
    assert (pd.read_csv(tmp_path / "out/quarantine.csv").columns == ["path", "plate", "well", "site", "reason"]).all()


@pytest.mark.parametrize("mode", ["grid", "random"])
def test_grid_and_random_crops_obey_the_foreground_rule(plate_of_tiffs, tmp_path, mode):
    sources = find_images(plate_of_tiffs)
    folder = prepare_dataset(sources, tmp_path / "out", mode=mode, **OPTIONS)
    dataset = ShardDataset(folder)
    assert dataset.index["foreground"].min() >= 0.01
    for item in range(0, len(dataset), 5):
        y, x = dataset.index["y"][item], dataset.index["x"][item]
        field = pixels(sources, dataset.index["field"][item])
        np.testing.assert_array_equal(dataset[item].image, field[:, y : y + 32, x : x + 32])
        if mode == "grid":
            assert y % 32 == x % 32 == 0
    if mode == "random":
        assert len(dataset) <= 4 * 16


def test_binning_and_a_cap_on_crops(plate_of_tiffs, tmp_path):
    sources = find_images(plate_of_tiffs)
    folder = prepare_dataset(sources, tmp_path / "out", bin=2, crops_per_field=3, **OPTIONS | {"crop_size": 16})
    dataset = ShardDataset(folder)
    assert np.bincount(dataset.index["field"]).tolist() == [3] * 4
    assert dataset.pixel_size_um == 2.2
    y, x = dataset.index["y"][0], dataset.index["x"][0]
    np.testing.assert_array_equal(dataset[0].image, bin_field(pixels(sources, 0), 2)[:, y : y + 16, x : x + 16])


@pytest.mark.parametrize("mode", ["nuclei", "random"])
def test_the_number_of_workers_changes_no_byte(plate_of_tiffs, tmp_path, mode):
    sources = find_images(plate_of_tiffs)
    folders = [
        prepare_dataset(sources, tmp_path / f"out{workers}", mode=mode, **OPTIONS | {"workers": workers})
        for workers in (1, 3)
    ]
    for file in ("shards/000000.tar", "index.arrow", "fields.parquet", "manifest.json", "quarantine.csv"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), file


def break_field(plate, site, kind):
    path = plate / f"r01c01f0{site}p01-ch2sk1fk1fl1.tiff"
    if kind == "no file":
        path.unlink()
    elif kind == "truncated":
        os.truncate(path, 4000)
    elif kind == "other channels":
        tifffile.imwrite(path, np.ones((100, 128), np.uint16))
    elif kind == "uint16":
        tifffile.imwrite(path, np.ones((128, 128), np.float32))
    elif kind == "all zero":
        tifffile.imwrite(path, np.zeros((128, 128), np.uint16))
    elif kind == "constant":
        tifffile.imwrite(path, np.full((128, 128), 90, np.uint16))


@pytest.mark.parametrize("kind", ["no file", "truncated", "other channels", "uint16", "all zero", "constant"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_field_is_quarantined_with_its_reason_and_the_rest_goes_on(
    plate_of_tiffs, tmp_path, kind, workers, capsys
):
    sources = find_images(plate_of_tiffs)
    whole = ShardDataset(prepare_dataset(sources, tmp_path / "whole", **OPTIONS))
    break_field(plate_of_tiffs / "P1", 2, kind)
    out = tmp_path / "out"
    folder = prepare_dataset(find_images(plate_of_tiffs), out, **OPTIONS | {"workers": workers, "progress": True})
    [bad] = pd.read_csv(folder / "quarantine.csv", dtype=str).to_dict("records")
    assert (bad["plate"], bad["well"], bad["site"]) == ("P1", "A01", "2")
    assert kind in bad["reason"]
    assert "images/P1" in bad["path"]
    dataset = ShardDataset(folder)
    assert dataset.fields[[schema.WELL, schema.SITE]].to_numpy().tolist() == [["A01", "1"], ["A02", "1"], ["B01", "1"]]
    kept = np.flatnonzero(whole.index["field"] != 1)
    np.testing.assert_array_equal(dataset.read(np.arange(len(dataset))), whole.read(kept))
    printed = capsys.readouterr().out
    assert f"4 fields of 1 plates, channels DNA ER RNA AGP Mito -> {out}" in printed
    assert f"3 fields, {len(kept)} crops, 1 fields quarantined" in printed
    assert kind in printed


def test_a_field_smaller_than_a_crop_is_quarantined_and_none_left_is_an_error(plate_of_tiffs, tmp_path):
    with pytest.raises(ValueError, match=r"none of the 4 fields could be used.*\n.*smaller than crop_size 200"):
        prepare_dataset(find_images(plate_of_tiffs), tmp_path / "out", **OPTIONS | {"crop_size": 200})
    assert not list(tmp_path.glob("out*"))


def test_an_empty_well_keeps_its_best_crop_flagged(plate_of_tiffs, tmp_path):
    """A01 has an empty and a good site, B01 is empty altogether: noise, which Otsu's threshold splits in halves."""
    for name in ("r01c01f02", "r02c01f01"):
        for path in (plate_of_tiffs / "P1").glob(f"{name}*"):
            tifffile.imwrite(path, np.random.default_rng(0).poisson(300, (128, 128)).astype(np.uint16))
    for mode in ("nuclei", "grid", "random"):
        dataset = ShardDataset(prepare_dataset(find_images(plate_of_tiffs), tmp_path / mode, mode=mode, **OPTIONS))
        crops = np.bincount(dataset.index["field"], minlength=4)
        assert crops[0] > 0
        assert crops[1] == 0
        assert crops[3] == 1
        assert dataset.index["foreground"][dataset.index["field"] == 3] == 0
        assert dataset.fields[schema.CELL_COUNT].tolist()[1::2] == [0, 0]
        assert dataset.fields["qc_no_foreground"].tolist() == [0, 0, 0, 1]


def test_a_finished_dataset_is_reused_and_never_mixed_up(plate_of_tiffs, tmp_path, capsys):
    sources, out = find_images(plate_of_tiffs), tmp_path / "out"
    prepare_dataset(sources, out, **OPTIONS)
    before = (out / "manifest.json").stat().st_mtime_ns
    assert prepare_dataset(sources, out, **OPTIONS | {"progress": True, "workers": 2}) == out
    assert "reused" in capsys.readouterr().out
    assert (out / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match=r"other arguments \(crop_size\)"):
        prepare_dataset(sources, out, **OPTIONS | {"crop_size": 16})
    with pytest.raises(FileExistsError, match=r"other arguments \(fields\)"):
        prepare_dataset(sources[:3], out, **OPTIONS)
    os.utime(sources["Path_ER"][2], ns=(before + 10**9, before + 10**9))
    with pytest.raises(FileExistsError, match=r"ch4.*is newer than"):
        prepare_dataset(sources, out, **OPTIONS)
    (out / "manifest.json").unlink()
    with pytest.raises(FileExistsError, match="never overwritten"):
        prepare_dataset(sources, out, **OPTIONS)


def write_metadata(folder):
    maps = folder / "platemaps" / "b1"
    (maps / "platemap").mkdir(parents=True)
    (maps / "barcode_platemap.csv").write_text("Assay_Plate_Barcode,Plate_Map_Name\nP1,map\n")
    (maps / "platemap" / "map.txt").write_text("well_position\tbroad_sample\nA01\tBRD-1\nA02\t\nB01\tBRD-2\n")
    (folder / "experiment-metadata.tsv").write_text(
        "Batch\tPlate_Map_Name\tAssay_Plate_Barcode\tPerturbation\tCell_type\tTime\nb1\tmap\tP1\tcompound\tU2OS\t48\n"
    )
    (folder / "toy_compound_metadata.tsv").write_text(
        "broad_sample\tInChIKey\tpert_iname\tpubchem_cid\tgene\tpert_type\tcontrol_type\tsmiles\n"
        "BRD-1\tK1\tpaclitaxel\t1\tTUBB\ttrt\t\tCCO\nBRD-2\tK2\tvolasertib\t2\tPLK1\ttrt\t\tCCN\n"
        "\tK3\tDMSO\t3\t\tcontrol\tnegcon\tCS(=O)C\n"
    )


def test_load_data_with_plate_maps_is_annotated(load_data_csv, tmp_path):
    write_metadata(tmp_path / "metadata")
    out = tmp_path / "out"
    sources = read_load_data(str(load_data_csv))
    dataset = ShardDataset(prepare_dataset(sources, out, metadata=tmp_path / "metadata", **OPTIONS), scale_by="negcon")
    perturbations = dataset.fields[schema.PERTURBATION].tolist()
    assert perturbations == ["BRD-1", "BRD-1", "DMSO", "BRD-2"]
    template = "{cell_line} cells treated with compound: {name}"
    prompts = dataset.table.prompts({"compound": template})
    assert prompts == [f"U2OS cells treated with compound: {name}" for name in ("paclitaxel", "volasertib", "DMSO")]
    assert dataset.codes.is_control.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(dataset[0].high, ShardDataset(out)[int(np.argmax(dataset.index["field"] == 2))].high)


def test_the_command_says_what_happened_by_its_exit_code(load_data_csv, plate_of_tiffs, tmp_path, capsys):
    common = ["--crop-size", "32", "--pixel-size", "1.1", "--workers", "1"]
    break_field(plate_of_tiffs / "P1", 1, "truncated")
    assert main(["--load-data", str(load_data_csv), "--out", str(tmp_path / "out"), *common]) == 0
    assert "1 fields quarantined" in capsys.readouterr().out
    table = pd.read_csv(load_data_csv)
    pd.concat([table, table]).to_csv(load_data_csv, index=False)
    assert main(["--load-data", str(load_data_csv), "--out", str(tmp_path / "two"), *common]) == 2
    assert "describe the same field" in capsys.readouterr().err
    drop = [*common, "--duplicates", "drop"]
    assert main(["--load-data", str(load_data_csv), "--out", str(tmp_path / "two"), *drop]) == 0
    for path in (plate_of_tiffs / "P1").glob("*-ch5*"):
        os.truncate(path, 100)
    assert main(["--images", str(plate_of_tiffs), "--out", str(tmp_path / "three"), *common]) == 2
    assert "none of the 4 fields" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()
    assert main(["--images", str(plate_of_tiffs), "--out", str(tmp_path / "four"), "--channel-map", "one=DNA"]) == 2
    assert "--channel-map" in capsys.readouterr().err


def test_real_fields_become_a_dataset(real_data, tmp_path):
    sources = find_images(real_data / "images")
    options = OPTIONS | {"crop_size": 64, "pixel_size_um": 0.598}
    dataset = ShardDataset(prepare_dataset(sources, tmp_path / "out", bin=2, **options))
    assert dataset.fields[schema.PLATE].tolist() == ["AMG900", "DMSO", "FK-866"]
    found = dataset.fields[schema.CELL_COUNT].sum()
    assert 0.95 * found <= len(dataset) <= found  # a few nuclei are dimmer than Otsu's threshold
    item = len(dataset) // 2
    row, y, x = (int(dataset.index[name][item]) for name in ("field", "y", "x"))
    field = bin_field(pixels(sources, row), 2)
    np.testing.assert_array_equal(dataset[item].image, field[:, y : y + 64, x : x + 64])
    centres = find_nuclei(field[0], 1.196)
    assert (np.abs(centres - (y + 32, x + 32)).max(axis=1) <= 1).any()
