"""One rule for errors: what the user can put right is one line and a status, a defect of ours keeps its traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.hydra_app import main
from morphoclip.cli.main import app


def outcome(name: str, arguments: list[str], capfd) -> tuple[int, list[str]]:
    """(exit status, lines on stderr) of `morphoclip train|evaluate`, in this process."""
    status = 0
    try:
        main(name, arguments)
    except SystemExit as error:
        status = int(error.code or 0)
    return status, [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("error:") or "Trace" in line
    ]


@pytest.fixture
def table(tmp_path) -> Path:
    wells = [schema.well_name(i // 6, i % 6) for i in range(12)]
    frame = pd.DataFrame({schema.PLATE: "P1", schema.WELL: wells, schema.PERTURBATION: list("aabbcc") + ["DMSO"] * 6})
    frame[schema.CONTROL_TYPE] = [""] * 6 + ["negcon"] * 6
    frame[[schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT]] = ["compound", "x", "x"]
    frame.assign(f0=range(12), f1=1.0).to_parquet(tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


TRAIN = [
    (["trainer.max_step=3"], 2, "there is no key trainer.max_step; nearest: trainer.max_steps"),
    (["method=simclear"], 2, "simclr"),
    (["experiment=nope"], 2, "there is no experiment 'nope'"),
    (["foo"], 2, "missing EQUAL"),
    (["encoder.image_size=128"], 1, "takes crops of 128 pixels"),
    (["+encoder.nonsense=1"], 2, "there is no key encoder.nonsense"),
    (["encoder=vit_tiny", "+encoder.ls=1"], 2, "there is no key encoder.ls"),
    (["encoder.name=vit_dem"], 1, "no encoder 'vit_dem'"),
    (["trainer.devices=4"], 1, "torchrun --nproc-per-node 4"),
    (["data=dataset", "data.root=nowhere"], 1, "no dataset folder nowhere"),
    (["data=features", "data.root=nowhere", "encoder=profile_mlp"], 1, "nowhere"),
]
EVALUATE = [
    ([], 1, "give exactly one of profiles="),
    (["profiles=nowhere/*.csv"], 1, "matches no file"),
    (["profiles={table}", "strict=maybe"], 1, "give true or false"),
    (["profiles={table}", "tasks=[replicates]"], 1, "['replicates'] are unknown"),
    (["profiles={table}", "p_convention=bayes"], 1, "choose among"),
    (["profiles={table}", "metadata=nowhere"], 1, "nowhere"),
    (["profiles={table}", "encoder=nowhere"], 1, "no encoder folder, checkpoint or run folder at nowhere"),
    (["profiles={table}", "encoder=e", "checkpoint=c"], 1, "give exactly one of"),
    (["encoder=nowhere", "dataset=d"], 1, "nowhere"),
    (["encoder=nowhere"], 1, "needs dataset="),
    (["checkpoint=nowhere.ckpt", "dataset=d"], 1, "nowhere.ckpt"),
    (["run=nowhere"], 1, "nowhere"),
    (["profiles={table}", "normalize=nope"], 2, "there is no normalize 'nope'"),
    (["profiles={table}", "nonsense=1"], 2, "there is no key nonsense"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "status", "said"),
    [*(("train", *case) for case in TRAIN), *(("evaluate", *case) for case in EVALUATE)],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_the_user_can_put_right_is_one_line(name, arguments, status, said, table, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(table=table) for argument in arguments]
    found, lines = outcome(name, [*given, f"output_dir={tmp_path / 'out'}"], capfd)
    assert found == status
    assert len(lines) == 1
    assert said in lines[0]


def test_the_traceback_comes_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="give exactly one of"):
        main("evaluate", [f"output_dir={tmp_path}"])
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_defect_of_ours_is_no_line(tmp_path, monkeypatch, capfd):
    def broken(config):
        raise AttributeError("a defect")

    monkeypatch.setattr("morphoclip.experiment.evaluate.run", broken)
    status, lines = outcome("evaluate", [f"output_dir={tmp_path}"], capfd)
    assert status == 1
    assert not [line for line in lines if line.startswith("error:")]


def test_the_environment_and_the_arguments_are_left_as_they_were(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = list(sys.argv)
    outcome("evaluate", [f"output_dir={tmp_path}"], capfd)
    assert sys.argv == before
    assert "HYDRA_FULL_ERROR" not in os.environ


@pytest.mark.parametrize("name", ["48213", "2026-11-26", "1e5", "nan", "007", "true"])
def test_a_name_that_looks_like_a_number_is_a_name(name, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("morphoclip.experiment.run.run", lambda config: seen.append((config.run_id, config.name)))
    main("train", [f"run_id={name}", f"name={name}"])
    assert seen == [(name, name)]


@pytest.mark.parametrize("command", ["prepare", "simulate"])
def test_data_commands_show_their_own_help(command, capsys):
    result = CliRunner().invoke(app, ["data", command, "--help"])
    assert result.exit_code == 0
    assert f"morphoclip data {command}" in result.output
