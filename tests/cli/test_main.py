"""The command line a profiling user sees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import morphoclip
from morphoclip import schema
from morphoclip.cli import main as cli_main
from morphoclip.cli.main import app
from morphoclip.models import create_encoder
from morphoclip.profiling import Normalizer, export_encoder
from tests.methods.tiny import clip


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


def test_a_failure_is_a_line_and_a_status_unless_the_traceback_is_asked_for(tmp_path, table, monkeypatch):
    command = ["normalize", table, "--out", f"{table}/x.csv"]  # a folder that is a file
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "raw.parquet" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert isinstance(CliRunner().invoke(app, command).exception, OSError)


def test_a_defect_of_ours_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(*args):
        raise TypeError("a defect")

    monkeypatch.setattr("morphoclip.profiling.export_encoder", broken)
    result = CliRunner().invoke(app, ["export", str(tmp_path), "--to", str(tmp_path / "b")])
    assert isinstance(result.exception, TypeError)


def test_attention_of_crops_is_refused_before_they_are_embedded(tmp_path, monkeypatch):
    def embedded(*args, **options):
        raise AssertionError("everything was embedded")

    monkeypatch.setattr("morphoclip.profiling.embed", embedded)
    mean = export_encoder(clip(image={"pool": "mean"}), tmp_path / "mean")
    result = CliRunner().invoke(app, ["embed", str(mean), str(tmp_path), "--out", "x.parquet", "--attention"])
    assert result.exit_code == 1
    assert "averages crops" in result.stderr


@pytest.mark.parametrize("command", ["query", "embed"])
def test_a_mistyped_path_is_reported_before_the_hub(command, monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*args, **options):
        raise huggingface_hub.errors.LocalEntryNotFoundError("check your internet connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.chdir(tmp_path)
    rest = ["--profiles", "p.parquet", "--text", "DMSO"] if command == "query" else ["data", "--out", "p.parquet"]
    result = CliRunner().invoke(app, [command, "runs/mistyped", *rest])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no file or folder runs/mistyped")


def test_weights_alone_ask_for_their_folder(tmp_path):
    made = export_encoder(create_encoder("intensity_statistics"), tmp_path / "made")
    command = ["query", str(made / "model.safetensors"), "--profiles", "p.parquet", "--text", "DMSO"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert f"give its folder, {made}" in result.stderr


def test_the_help_lists_every_command():
    names = {command.name or command.callback.__name__ for command in app.registered_commands} | {"data", "runs"}
    assert set(cli_main.__doc__.split("`")[1].removeprefix("morphoclip ").split(" | ")) == names


def test_the_version_is_that_of_the_package():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"morphoclip {morphoclip.__version__}\n"
