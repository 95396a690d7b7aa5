"""The command line a profiling user sees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import morphoclip
from morphoclip.cli import app
from morphoclip.data import schema
from morphoclip.models import create_encoder
from morphoclip.profiling import Normalizer, export_encoder


@pytest.fixture
def table(tmp_path) -> str:
    rng = np.random.default_rng(0)
    wells = [schema.well_name(r, c) for r in range(4) for c in range(6)]
    frame = pd.DataFrame(rng.normal(3, 1, (24, 5)), columns=[f"embedding_{i:04d}" for i in range(5)])
    frame.insert(0, schema.CONTROL_TYPE, ["negcon"] * 12 + [""] * 12)
    frame.insert(0, schema.WELL, wells)
    frame.insert(0, schema.PLATE, "P1")
    frame.to_parquet(tmp_path / "raw.parquet")
    return str(tmp_path / "raw.parquet")


def test_export_copies_an_encoder_folder_that_loads(tmp_path):
    made = export_encoder(create_encoder("intensity_statistics"), tmp_path / "a")
    result = CliRunner().invoke(app, ["export", str(made), "--to", str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    assert morphoclip.load_encoder(tmp_path / "b").config["name"] == "intensity_statistics"


def test_normalize_centres_on_controls_and_keeps_the_statistics(tmp_path, table):
    out = tmp_path / "centred.parquet"
    result = CliRunner().invoke(app, ["normalize", table, "--out", str(out), "--preset", "center"])
    assert result.exit_code == 0, result.output
    centred = pd.read_parquet(out)
    features = schema.split_columns(centred)[1]
    assert np.abs(centred.loc[centred[schema.CONTROL_TYPE] == "negcon", features].mean()).max() < 1e-6
    again = Normalizer.load(f"{out}.normalizer").transform(pd.read_parquet(table))
    np.testing.assert_allclose(again[features], centred[features], atol=1e-5)


def test_an_unknown_preset_lists_the_known_ones(tmp_path, table):
    result = CliRunner().invoke(app, ["normalize", table, "--out", str(tmp_path / "x.parquet"), "--preset", "centre"])
    assert result.exit_code != 0
    assert "kim2025" in result.output
