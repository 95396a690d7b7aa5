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


def test_bad_tables_are_named(table, tmp_path):
    (tmp_path / "text.csv").write_text("Metadata_Plate,f0\nP1,high\n")
    with pytest.raises(ValueError, match=r"text\.csv.*f0"):
        read_profiles(tmp_path / "text.csv")
    (tmp_path / "table.xlsx").touch()
    with pytest.raises(ValueError, match="ends in none of"):
        read_profiles(tmp_path / "table.xlsx")
    with pytest.raises(ValueError, match="ends in none of"):
        write_profiles(table, tmp_path / "table.pkl", {})
