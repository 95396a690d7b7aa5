"""Which run a start goes on with, what it may change, and what run.json says of it."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack

import pytest
import torch
from omegaconf import OmegaConf

from morphoclip.checkpoints import write_checkpoint
from morphoclip.experiment.changes import check_changes, describe, flat
from morphoclip.experiment.runs import find_run, open_run, read_record, resumed_arguments, write_record
from morphoclip.lock import FolderLock
from morphoclip.training.interrupts import Interrupted


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def begin(tmp_path):
    """Opens a run as `run` does, ends it by an error if one is given, and returns its `Start`."""

    def opened(error: BaseException | None = None, step: int | None = None, ranks: int = 1, **changed):
        values = {
            "output_dir": str(tmp_path),
            "name": "demo",
            "run_id": None,
            "resume": None,
            "seed": 0,
            "folder": None,
        }
        values |= {
            "max_time": None,
            "encoder": {"name": "vit"},
            "method": {"_target_": "a.CLIP", "optimizer": "${optimizer}"},
            "optimizer": {"lr": 1.0},
        }
        values |= {"trainer": {"max_steps": 9, "devices": ranks}, "data": {"loader": {"global_batch_size": 8}}}
        config = OmegaConf.merge(values, OmegaConf.from_dotlist([f"{key}={value}" for key, value in changed.items()]))
        with ExitStack() as held:
            start = open_run(config, flat(config), ranks, held)
            if step is not None:
                saved = {"state_dict": {"w": torch.zeros(3)}, "global_step": step}
                write_checkpoint(saved, start.folder / "checkpoints/last.ckpt")
            if error is not None:
                raise error
        return start

    return opened


def failed(begin, error: BaseException, **options):
    """The folder of a run that ended by `error`."""
    with pytest.raises(type(error)):
        begin(error, **options)


def test_each_start_is_a_run_of_its_own(begin, capsys):
    folders = {begin().folder for _ in range(3)}
    assert len(folders) == 3
    said = capsys.readouterr().out
    assert all(f"{folder} starts: CLIP" in said for folder in folders)
    assert all(not (folder / "run.lock").exists() for folder in folders)


def test_run_id_names_a_run_and_says_whether_it_starts_or_goes_on(begin, tmp_path, capsys):
    failed(begin, RuntimeError("no memory"), run_id="mine", step=4)
    assert capsys.readouterr().out.startswith(f"{tmp_path}/demo/mine starts: CLIP with encoder vit, seed 0")
    assert begin(run_id="mine").checkpoint == tmp_path / "demo/mine/checkpoints/last.ckpt"
    assert capsys.readouterr().out.startswith(f"{tmp_path}/demo/mine goes on at step 4: CLIP")


def test_a_finished_run_has_nothing_to_do_unless_something_changed(begin, capsys):
    begin(run_id="mine", step=9)
    assert begin(run_id="mine").finished
    assert "is finished at step 9: nothing is left to do" in capsys.readouterr().out
    assert not begin(run_id="mine", **{"trainer.max_steps": 20}).finished
    assert "changed: trainer.max_steps: 9 -> 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (None, "finished", None),
        (FileNotFoundError("no plate"), "failed", "FileNotFoundError: no plate"),
        (Interrupted(143), "interrupted", "interrupted by SIGTERM"),
        (Interrupted(124), "interrupted", "max_time is over"),
    ],
)
def test_run_json_says_how_a_run_ended(begin, tmp_path, error, state, reason):
    if error is None:
        begin(run_id="mine", step=2)
    else:
        failed(begin, error, run_id="mine", step=2)
    known = read_record(tmp_path / "demo/mine")
    assert (known["state"], known["reason"], known["step"]) == (state, reason, 2)
    assert known["host"] == os.uname().nodename


def test_two_starts_in_one_slurm_job_are_two_runs(begin, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert [begin(seed=seed).folder.name for seed in (0, 1, 1)] == ["slurm-17-1", "slurm-17-2", "slurm-17-3"]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "16")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    assert begin().folder.name == "slurm-16-4-1"


def test_a_requeued_job_repeats_its_starts_and_each_goes_on_with_its_own(begin, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    begin(seed=0, step=9)
    failed(begin, Interrupted(138), seed=1, step=5)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert begin(seed=0).finished
    again = begin(seed=1)
    assert (again.folder.name, again.finished) == ("slurm-17-2", False)
    assert begin(seed=2).folder.name == "slurm-17-3"  # not started before
    assert begin(seed=1).folder.name == "slurm-17-4"  # the same once more in this pass: a run of its own


def test_another_job_with_the_same_config_does_not_go_on(begin, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    begin(step=3)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert begin().folder.name == "slurm-18-1"


def test_torchrun_that_restarts_goes_on(begin, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    failed(begin, RuntimeError("a rank died"), step=3)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert begin().checkpoint is not None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert begin().checkpoint is None  # the next launch is a new run


def test_resume_finds_a_run_by_id_name_path_or_as_the_latest(begin, tmp_path):
    for name, run_id in (("demo", "a"), ("other", "a"), ("other", "b")):
        begin(name=name, run_id=run_id, step=1)
    os.utime(tmp_path / "other/a/run.json", (2e9, 2e9))
    for asked, found in {
        "b": "other/b",
        "demo/a": "demo/a",
        str(tmp_path / "other/b"): "other/b",
        "latest": "other/a",
    }.items():
        assert find_run(tmp_path, asked) == tmp_path / found
    assert begin(resume="b", **{"trainer.max_steps": 10}).folder == tmp_path / "other/b"
    with pytest.raises(
        ValueError, match=r"resume=a is the id of several runs: give one of (demo/a, other/a|other/a, demo/a)"
    ):
        find_run(tmp_path, "a")


def test_resume_of_a_run_that_does_not_exist_names_the_nearest(begin, tmp_path):
    begin(run_id="20261127-1200-ab", step=1)
    with pytest.raises(
        FileNotFoundError, match=r"there is no run '20261127-1200-ba' in .*nearest: demo/20261127-1200-ab"
    ):
        begin(resume="20261127-1200-ba")
    with pytest.raises(FileNotFoundError, match="it has no runs"):
        find_run(tmp_path / "empty", "latest")
    with pytest.raises(ValueError, match="not both"):
        begin(resume="latest", run_id="x")
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["20261127-1200-ab"]


@pytest.mark.parametrize("change", [{"encoder.name": "other"}, {"method._target_": "a.DINO"}, {"method.weight": 2}])
def test_another_method_or_encoder_is_refused(begin, tmp_path, change):
    begin(run_id="mine", step=3)
    with pytest.raises(ValueError, match=next(iter(change))):
        begin(run_id="mine", **change)
    assert read_record(tmp_path / "demo/mine")["state"] == "finished"


def test_what_stays_exact_is_said(begin, capsys):
    failed(begin, RuntimeError(), run_id="mine", step=3)
    begin(run_id="mine", ranks=2, **{"optimizer.lr": 2.0, "data.loader.global_batch_size": 16})
    said = capsys.readouterr().out
    assert "changed: optimizer.lr: 1.0 -> 2.0" in said
    assert "ranks: 1 -> 2; batches, random draws, rates and losses stay the same" in said
    assert "the batch size changed" in said


def test_many_changes_are_cut(begin):
    lines = describe({f"a{k}": 1 for k in range(20)}, {f"a{k}": 2 for k in range(20)}, (1, 1))
    assert len(lines) == 13
    assert lines[-1] == "… and 8 more"
    check_changes({}, {"method.monitor_every": 3, "optimizer.lr": 1, "data.root": "x"})


def test_one_writer_a_folder(begin, tmp_path):
    begin(run_id="mine", step=3)
    with FolderLock(tmp_path / "demo/mine/run.lock"), pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
        begin(run_id="mine", seed=1)
    assert read_record(tmp_path / "demo/mine")["config"]["seed"] == 0


def test_the_arguments_of_a_run_are_taken_again(tmp_path):
    folder = tmp_path / "demo/mine"
    folder.mkdir(parents=True)
    write_record(folder, arguments=["--config-dir", "lab", "experiment=x", "+data.extra=1", "seed=3"])
    given = ["resume=mine", f"output_dir={tmp_path}", "seed=4", "data.extra=2"]
    expected = [
        "--config-dir",
        "lab",
        "experiment=x",
        f"output_dir={tmp_path}",
        "seed=4",
        "data.extra=2",
        f"resume='{folder}'",
    ]
    assert resumed_arguments(given, "outputs") == expected
    assert resumed_arguments(["seed=1"], "outputs") == ["seed=1"]
    with pytest.raises(ValueError, match="leave out -m"):
        resumed_arguments(["-m", *given], "outputs")


def test_the_record_is_json_a_person_can_read(begin, tmp_path):
    begin(run_id="mine", step=1)
    text = (tmp_path / "demo/mine/run.json").read_text()
    assert json.loads(text)["config"]["trainer.max_steps"] == 9
    assert text.count("\n") > 10
