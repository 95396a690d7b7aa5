from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from morphoclip.profiling import read_profiles, write_profiles


@pytest.fixture
def table() -> pd.DataFrame:
    """A numeric-looking plate id, a blank, a leading zero, and metadata behind a feature."""
    return pd.DataFrame(
        {
            "f0": np.array([0.1, -2.5, 1e-7], np.float32),
            "Metadata_Plate": ["0110", "0110", "24277"],
            "Metadata_Well": ["A01", "A02", "A01"],
            "Metadata_gene": ["", None, "TP53"],
            "f1": np.array([1, 2, 3], np.float32),
        }
    )


@pytest.mark.parametrize("name", ["profiles.parquet", "profiles.csv", "profiles.csv.gz", "profiles.h5ad"])
def test_what_is_written_is_read_back(table, tmp_path, name):
    write_profiles(table, tmp_path / name, {"encoder_sha256": "abc"})
    read = read_profiles(tmp_path / name)
    assert read.columns.tolist() == ["Metadata_Plate", "Metadata_Well", "Metadata_gene", "f0", "f1"]
    assert read["Metadata_Plate"].tolist() == ["0110", "0110", "24277"]
    assert read["Metadata_gene"].tolist() == ["", "", "TP53"]
    np.testing.assert_array_equal(read[["f0", "f1"]].astype(np.float32), table[["f0", "f1"]])
    assert json.loads((tmp_path / f"{name}.json").read_text()) == {"encoder_sha256": "abc"}
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.json"}


def test_a_failed_write_leaves_the_old_table(table, tmp_path):
    write_profiles(table, tmp_path / "p.parquet", {})
    before = (tmp_path / "p.parquet").read_bytes()
    with pytest.raises(TypeError):
        write_profiles(table.assign(f0=0), tmp_path / "p.parquet", {"not": object()})
    assert (tmp_path / "p.parquet").read_bytes() == before


def test_plates_of_a_glob_are_joined_and_must_agree(table, tmp_path):
    for plate, rows in table.groupby("Metadata_Plate"):
        write_profiles(rows, tmp_path / f"{plate}.csv", {})
    assert len(read_profiles(tmp_path / "*.csv")) == 3
    write_profiles(table.rename(columns={"f1": "g"}), tmp_path / "z.csv", {})
    with pytest.raises(ValueError, match=r"z\.csv differ in 2 features"):
        read_profiles(tmp_path / "*.csv")
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_profiles(tmp_path / "nothing*")


def test_real_plates_are_read_as_they_are(real_plates):
    from tests.profiling.conftest import REAL_PLATES

    read = read_profiles(REAL_PLATES / "*.csv.gz")
    assert read.shape == real_plates.shape
    assert (read["Metadata_perturbation"] == "").sum() == 192
    assert (read["Metadata_control_type"] == "negcon").sum() == 192


@pytest.mark.parametrize("name", ["p.parquet", "p.h5ad", "p.csv"])
def test_whole_numbers_saved_as_floats_are_read_as_whole(tmp_path, name):
    """Half of a screen in a csv, half in what pandas made of it: one plate, one timepoint, doses as they are."""
    table = pd.DataFrame(
        {
            "Metadata_Plate": [1001.0, 1001.0, np.nan],
            "Metadata_timepoint_h": [24.0] * 3,
            "Metadata_dose_um": [0.5, 3, 10],
        }
    ).assign(f0=[1.0, 2.0, 3.0])
    if name == "p.parquet":
        table.to_parquet(tmp_path / name)
    elif name == "p.csv":
        table.to_csv(tmp_path / name, index=False)
    else:
        anndata = pytest.importorskip("anndata")
        obs = table.drop(columns="f0").set_axis(["a", "b", "c"])
        anndata.AnnData(table[["f0"]].to_numpy(), obs=obs, var=pd.DataFrame(index=["f0"])).write_h5ad(tmp_path / name)
    read = read_profiles(tmp_path / name)
    assert read["Metadata_Plate"].tolist() == ["1001", "1001", ""]
    assert read["Metadata_timepoint_h"].tolist() == ["24"] * 3
    assert read["Metadata_dose_um"].tolist() == ["0.5", "3", "10"]


def test_bookkeeping_is_no_feature(table, tmp_path):
    """As CellProfiler writes an image table, saved with its index."""
    renamed = table.rename(columns={"Metadata_Plate": "Image_Metadata_Plate", "Metadata_Well": "Image_Metadata_Well"})
    counters = {
        "ImageNumber": 1,
        "ObjectNumber": 2,
        "TableNumber": 3,
        "Image_Count_Cells": [90, 80, 70],
        "Count_Nuclei": 9,
    }
    renamed.assign(**counters).to_csv(tmp_path / "image.csv")
    with pytest.warns(UserWarning, match="'Unnamed: 0', 'ImageNumber', .*'Count_Nuclei'.* left out"):
        read = read_profiles(tmp_path / "image.csv")
    assert read.columns.drop("Metadata_gene").tolist() == [
        "Metadata_Plate", "Metadata_Well", "Metadata_cell_count", "f0", "f1"
    ]  # fmt: skip
    assert read["Metadata_Plate"].tolist() == ["0110", "0110", "24277"]
    assert read["Metadata_cell_count"].tolist() == ["90", "80", "70"]


def test_bad_tables_are_named(table, tmp_path):
    (tmp_path / "text.csv").write_text("Metadata_Plate,f0\nP1,high\n")
    with pytest.raises(ValueError, match=r"text\.csv.*f0"):
        read_profiles(tmp_path / "text.csv")
    (tmp_path / "empty.csv").write_text("Metadata_Plate,f0\n")
    with pytest.raises(ValueError, match=r"empty\.csv has no rows"):
        read_profiles(tmp_path / "empty.csv")
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(ValueError, match="must end in one of"):
        read_profiles(tmp_path / "table.xlsx")
    with pytest.raises(ValueError, match="must end in one of"):
        write_profiles(table, tmp_path / "table.pkl", {})
