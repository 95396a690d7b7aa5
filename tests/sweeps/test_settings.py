"""What a sweep's YAML may say, and the one line for each mistake."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from morphoclip import configs_dir
from morphoclip.cli.main import app
from morphoclip.experiment.sweeps.settings import find_settings, read_settings
from morphoclip.experiment.sweeps.space import as_text
from morphoclip.experiment.sweeps.study import Trial
from morphoclip.experiment.sweeps.trials import check_config, overrides_of

GIVEN = {
    "objective": "{metric: val/loss, direction: minimize}",
    "space": "{optimizer.lr: {type: float, low: 1e-4, high: 1e-2, log: true}}",
}
STUDIES = sorted(p.stem for p in (configs_dir() / "sweep").glob("*.yaml") if not p.stem.startswith("pipelines"))


def write(folder: Path, **given: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in {**GIVEN, **given}.items() if value))
    return path


@pytest.mark.parametrize("name", STUDIES)
def test_studies_of_the_configs_compose(name):
    settings = read_settings(find_settings(name, configs_dir()), ["data.root=features"] if name == "clip" else [])
    check_config(settings)
    assert settings.n_trials >= 8


def test_arguments_change_the_sweep_or_all_its_trials(tmp_path):
    arguments = ["n_trials=3", "launcher.n_gpus=2", "experiment=morphoclip_debug", "output_dir=else where"]
    settings = read_settings(write(tmp_path), arguments)
    assert (settings.n_trials, settings.launcher) == (3, {"type": "local", "n_gpus": 2})
    assert (settings.name, settings.folder) == ("mine", Path("else where/mine"))
    assert overrides_of(settings, Trial(4, {"optimizer.lr": 1e-5})) == [
        "experiment=morphoclip_debug",
        "optimizer.lr=1e-05",
        "name='mine'",
        "run_id=trial-4",
        "output_dir='else where'",
    ]


@pytest.mark.parametrize(("given", "read"), [("12:00:00", "12:00:00"), ('"00:10:00"', "00:10:00"), ("", None)])
def test_a_duration_may_have_no_quotes(tmp_path, given, read):
    assert read_settings(write(tmp_path, timeout=given)).timeout == read


def test_values_are_written_in_hydras_grammar():
    values = [True, None, 0.1, 3, "adamw", [1, None], {"a": False}]
    assert [as_text(value) for value in values] == ["true", "null", "0.1", "3", "adamw", "[1,null]", "{a:false}"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"objective": ""}, "mine.yaml has no objective: add objective:"),
        ({"objective": "{direction: minimize}"}, "objective needs a metric"),
        ({"objective": "{metric: val/loss}"}, "objective.direction=None: give minimize or maximize"),
        ({"objective": "{metric: a, direction: minimize, reduce: worst}"}, "objective.reduce=worst: give one of last"),
        ({"objective": "{metric: a, direction: minimize, redcue: last}"}, "unknown key objective.redcue"),
        ({"space": ""}, "mine.yaml has no space: add"),
        ({"space": "{optimizer.lr: {low: 1, high: 2}}"}, r"space.optimizer.lr: type=None: give float or int"),
        ({"space": "{optimizer.lr: {type: float, low: 2, high: 1}}"}, "low=2, high=1: give two numbers"),
        ({"space": "{optimizer.lr: {type: int, low: 0.5, high: 2}}"}, "give two numbers of this type"),
        ({"space": "{optimizer.lr: {type: float, low: 0, high: 1, log: true}}"}, "log: true needs low above 0"),
        ({"space": "{optimizer.lr: {choices: [1]}}"}, "choices need at least two values"),
        ({"space": "{optimizer.lr: {type: float, low: 0, hihg: 1}}"}, "unknown key hihg; a range has"),
        ({"timeout": "soon"}, "timeout=soon: give HH:MM:SS"),
        ({"n_trails": "3"}, r"unknown key n_trails \(nearest: n_trials\)"),
        ({"n_trials": "0"}, "n_trials=0: give a number of at least 1"),
        ({"sampler": "{type: cmaes}"}, "sampler.type=cmaes: give one of tpe, random"),
        ({"sampler": "{type: tpe, n_starts: 3}"}, "its keywords are those of Optuna's TPESampler"),
        ({"overrides": "{optimizer.lr: 1}"}, "optimizer.lr cannot be one of the overrides: the search space varies it"),
        ({"overrides": "[run_id=mine]"}, "run_id cannot be one of the overrides: trials are the runs"),
        ({"overrides": "{optimiser.lr: 1}"}, "optimiser"),
        ({"space": "{augment: [flip, strong, flipp]}"}, "flipp"),
        ({"name": "a/b"}, "name='a/b': use letters"),
        (
            {"objective": "{task: replicate, metric: x, direction: maximize}", "pruner": "median"},
            "a pruner cannot watch: add pruner.metric",
        ),
        ({"launcher": "{n_gpu: 1}"}, "launcher.n_gpu: a local launcher has n_gpus"),
        ({"launcher": "{n_gpus: 99}"}, "launcher.n_gpus=99, but 0 GPUs are visible here"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_starts(tmp_path, monkeypatch, given, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = write(tmp_path, **given)
    result = CliRunner().invoke(app, ["sweep", str(path), f"output_dir={tmp_path}/out"])
    assert result.exit_code in (1, 2)
    lines = [line for line in result.output.splitlines() if line]
    assert len(lines) == 1, result.output
    assert lines[0].startswith("error: ")
    assert re.search(said, lines[0])
    assert not list((tmp_path / "out").rglob("trial-*"))


def test_a_sweep_that_does_not_exist_names_those_that_do():
    result = CliRunner().invoke(app, ["sweep", "sweep/clop.yaml"])
    assert result.exit_code == 1
    assert "error: there is no sweep sweep/clop.yaml: give a YAML file, or one of configs/sweep (clip" in result.output


def test_a_sweep_of_pipelines_is_no_study():
    result = CliRunner().invoke(app, ["sweep", "pipelines"])
    assert "pipelines.yaml has no objective" in result.output


def test_without_optuna_there_is_one_line_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = CliRunner().invoke(app, ["sweep", str(write(tmp_path))])
    assert result.output.startswith("error: a sweep needs Optuna: pip install 'morphoclip[sweep]'")
