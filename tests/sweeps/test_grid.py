"""Grids by `-m`: one folder, a table that is complete after each run, failures that do not end it, and going on."""

from __future__ import annotations

import copy
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from morphoclip import configs_dir
from morphoclip.experiment.sweeps.grid import GRID, Grid, grid_table, remove_unused, run_recorded
from morphoclip.experiment.sweeps.grid_folder import folder_in_grid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def composed(tmp_path):
    """Compose a main config as Hydra does for a grid."""

    def made(name: str, *overrides: str, job: int | None = None, hydra: tuple[str, ...] = ()):
        with initialize_config_dir(str(configs_dir()), version_base="1.3"):
            own = [f"output_dir={tmp_path}", *overrides]
            plain = [o for o in own if "," not in o]
            config = compose(name, overrides=[*plain, *hydra], return_hydra_config=True)
        with open_dict(config):
            config.hydra.overrides.task = own
            if job is not None:
                config.hydra.job.num = job
        return config

    yield made
    HydraConfig.instance().cfg = None


def begun(composed, name: str, *overrides: str, **options) -> tuple[Grid, list[str]]:
    """A grid that has begun, and what Hydra adds to the overrides of its runs."""
    config = composed(name, *overrides)
    grid = Grid(**options)
    grid.on_multirun_start(config)
    return grid, [o for o in config.hydra.overrides.hydra if o.startswith("hydra.sweep")]


def do(composed, name: str, hydra: list[str], job: int, run, *overrides: str) -> None:
    """One run of a grid, as the launcher does it."""
    config = composed(name, *overrides, job=job, hydra=tuple(hydra))
    HydraConfig.instance().set_config(copy.deepcopy(config))
    with open_dict(config):
        del config["hydra"]
    run_recorded(run, config, lambda error: str(error) if isinstance(error, ValueError) else None)


def test_a_failed_run_is_recorded_and_the_others_go_on(tmp_path, composed, capsys):
    grid, hydra = begun(composed, "train", "experiment=demo", "name=mine", "seed=0,1", "optimizer.lr=1e-3,1e-2")
    assert grid.folder.parent == tmp_path / "mine"
    states = []

    def train(config) -> None:
        states.append([row.state for row in grid_table(grid.folder).rows])
        assert folder_in_grid() == grid.folder / str(len(states) - 1)
        if len(states) == 2:
            raise ValueError("the data are gone")
        if len(states) == 3:
            raise TypeError("a defect")
        (folder_in_grid() / "logs").mkdir(parents=True)
        (folder_in_grid() / "logs/metrics.csv").write_text(f"step,train/loss\n4,{len(states)}\n")

    for job in range(4):
        do(composed, "train", hydra, job, train, "name=mine")
    assert states[0] == ["running", "pending", "pending", "pending"]
    assert states[3] == ["finished", "failed", "failed", "running"]
    with pytest.raises(SystemExit) as end:
        grid.on_multirun_end(composed("train", "name=mine"))
    assert end.value.code == 1
    assert "error: 2 of 4 runs failed: 1, 2" in capsys.readouterr().err
    rows = list(csv.DictReader((grid.folder / "sweep.csv").open()))
    assert [(row["seed"], row["optimizer.lr"], row["state"], row["train/loss"], row["reason"]) for row in rows] == [
        ("0", "0.001", "finished", "1", ""),
        ("0", "0.01", "failed", "", "the data are gone"),
        ("1", "0.001", "failed", "", "TypeError: a defect"),
        ("1", "0.01", "finished", "4", ""),
    ]
    assert (grid.folder / "sweep.html").is_file()


def test_an_interrupted_run_ends_the_grid_and_a_run_at_its_time_limit_does_not(composed, capsys):
    grid, hydra = begun(composed, "train", "name=mine", "run_id=nightly", "seed=0,1")

    def ends(status: int):
        return lambda config: sys.exit(status)

    do(composed, "train", hydra, 0, ends(124), "name=mine")
    with pytest.raises(SystemExit):
        do(composed, "train", hydra, 1, ends(130), "name=mine")
    assert [row.state for row in grid_table(grid.folder).rows] == ["interrupted", "interrupted"]
    with pytest.raises(SystemExit) as end:
        grid.on_multirun_end(composed("train", "name=mine"))
    assert end.value.code == 124


def test_a_named_grid_goes_on_and_another_one_of_its_name_is_refused(tmp_path, composed, capsys):
    first, _ = begun(composed, "train", "name=mine", "run_id=nightly", "seed=0,1")
    again, _ = begun(composed, "train", "name=mine", "run_id=nightly", "seed=0,1")
    assert first.folder == again.folder == tmp_path / "mine/nightly"
    assert f"{first.folder} goes on: 2 runs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        begun(composed, "train", "name=mine", "run_id=nightly", "seed=0,2")
    assert "is a grid of 2 other runs: give another run_id=" in capsys.readouterr().err


def test_a_requeued_job_goes_on_with_its_grid_and_two_grids_of_a_job_are_two(tmp_path, composed, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    grids = [begun(composed, "train", "name=mine", f"seed={seeds}")[0].folder for seeds in ("0,1", "2,3")]
    assert [folder.name for folder in grids] == ["slurm-17-1", "slurm-17-2"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert begun(composed, "train", "name=mine", "seed=2,3")[0].folder == grids[1]
    assert begun(composed, "train", "name=mine", "seed=2,3")[0].folder.name == "slurm-17-3"  # the second of this start


def test_ranks_other_than_0_leave_the_folder_to_it(tmp_path, composed, monkeypatch):
    for key, value in {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    grid, hydra = begun(composed, "train", "name=mine", "seed=0,1")
    assert grid.folder is None
    assert str(tmp_path / "mine") not in hydra[0]
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("varied", ["output_dir=a,b", "run_id=a,b"])
def test_a_folder_cannot_be_varied(composed, capsys, varied):
    with pytest.raises(SystemExit):
        begun(composed, "train", "name=mine", varied)
    assert f"error: {varied.partition('=')[0]}= cannot be varied" in capsys.readouterr().err


def test_evaluations_have_a_folder_each_and_one_alone_has_output_dir(tmp_path, composed):
    grid, hydra = begun(composed, "evaluate", "protocol=cpjump1,generic", own_folder=False)
    folders = []
    for job in range(2):
        do(composed, "evaluate", hydra, job, lambda config: folders.append(config.output_dir))
    assert folders == [str(tmp_path / "0"), str(tmp_path / "1")]
    assert [row.state for row in grid_table(tmp_path).rows] == ["finished", "finished"]
    (tmp_path / GRID).unlink()
    grid, hydra = begun(composed, "evaluate", "+sweep=pipelines", own_folder=False)
    assert (grid.folder, hydra) == (None, ["hydra.sweep.subdir='.'"])


def test_a_grid_of_which_nothing_started_leaves_no_folder(tmp_path, composed):
    grid, _ = begun(composed, "train", "name=mine", "run_id=nightly", "seed=0,1")
    remove_unused(grid.folder)
    assert not grid.folder.exists()
    grid, hydra = begun(composed, "train", "name=mine", "run_id=nightly", "seed=0,1")
    do(composed, "train", hydra, 0, lambda config: None, "name=mine")
    remove_unused(grid.folder)
    assert grid.folder.is_dir()


@pytest.mark.parametrize("path", sorted((configs_dir() / "hydra/launcher").glob("*.yaml")), ids=lambda path: path.stem)
def test_launchers_have_the_keys_of_hydras_plugin(path):
    from hydra_plugins.hydra_submitit_launcher.config import LocalQueueConf, SlurmQueueConf

    known = OmegaConf.structured(SlurmQueueConf if "slurm" in path.stem else LocalQueueConf)
    given = OmegaConf.load(path)
    assert set(given) <= set(known)
    OmegaConf.merge(known, given)  # of the right types


@pytest.mark.slow
def test_a_grid_from_the_command_line_leaves_nothing_in_the_current_folder(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "-m", "experiment=morphoclip_debug", "score=none"]
    settings = ["trainer.max_steps=2", "trainer.log_every_n_steps=1", "optimizer.lr=1e-3,fast"]
    done = subprocess.run([*command, *settings], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    (folder,) = (tmp_path / "outputs/morphoclip_debug").iterdir()
    assert {path.name for path in folder.iterdir()} == {"0", "1", "multirun.yaml", GRID, "sweep.csv", "sweep.html"}
    assert json.loads((folder / "0/run.json").read_text())["state"] == "finished"
    assert (folder / "0/encoder/model.safetensors").is_file()
    wrong = subprocess.run(
        [*command, "seed=0,1", "optimizer.lrr=1"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert len(wrong.stderr.splitlines()) == 1, wrong.stderr
    assert list((tmp_path / "outputs/morphoclip_debug").iterdir()) == [folder]
