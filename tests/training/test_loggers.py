"""wandb gets each step once, in one run, whatever was interrupted; what cannot log is refused before a start."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from morphoclip.cli.hydra_app import main
from morphoclip.training.curves import CSVCurves
from morphoclip.training.loggers import WandbCurves, check_loggers, log_scores, wandb_run_ended
from tests.wandb_files import history, run_record, summary

WANDB = {"_target_": "morphoclip.training.loggers.WandbCurves"}
SCORES = """task,subset,metric,value,ci_low,ci_high,n,chance,p_convention
replicate,all,mean_average_precision,0.5,0.4,0.6,12,0.1,exact
replicate,A,mean_average_precision,0.25,,,6,0.1,exact
"""


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def logger(folder: Path, **options) -> WandbCurves:
    curves = folder / "logs/metrics.csv"
    return WandbCurves(folder, curves, project="p", id="demo/mine", **{"offline": True, **options})


def log(folder: Path, steps, value: float, checkpoint: int | None = None) -> Path:
    """A start that logs `steps`; returns wandb's folder of it."""
    made, table = logger(folder), CSVCurves(folder / "logs")
    table.cut(-1 if checkpoint is None else checkpoint)
    made.go_on(checkpoint, {"optimizer": {"lr": 0.1}})
    with wandb_run_ended():
        made.log_hyperparams({})
        for step in steps:
            for each in (made, table):
                each.log_metrics({"train/loss": value + step, "epoch": 0}, step)
        return Path(made.run.dir).parent


def test_an_offline_run_that_goes_on_is_whole_in_its_last_folder(tmp_path, capsys):
    first = log(tmp_path, (1, 2, 3, 4), 0.0)
    capsys.readouterr()
    second = log(tmp_path, (3, 4, 5), 100.0, checkpoint=2)  # killed after step 4, saved at 2
    rows = history(second)
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(1, 1), (2, 2), (3, 103), (4, 104), (5, 105)]
    assert run_record(second).run_id == run_record(tmp_path / "wandb/replaced" / first.name).run_id == "demo-mine"
    config = {u.key or u.nested_key[0]: u.value_json for u in run_record(second).config.update}
    assert json.loads(config["optimizer"]) == {"lr": 0.1}
    # What `wandb sync FOLDER/wandb` would take: the last folder only.
    assert [path.parent for path in (tmp_path / "wandb").glob("*/*.wandb") if not path.parent.is_symlink()] == [second]
    assert f"wandb sync {second}" in capsys.readouterr().out


def test_a_folder_that_was_uploaded_stays_and_is_named(tmp_path, capsys):
    first = log(tmp_path, (1, 2), 0.0)
    (first / "run-demo-mine.wandb.synced").touch()
    log(tmp_path, (2,), 0.0, checkpoint=1)
    assert first.is_dir()
    assert f"{first} was uploaded; delete that run" in capsys.readouterr().out


def test_pictures_before_the_checkpoint_come_along(tmp_path):
    (tmp_path / "pictures").mkdir()
    for epoch, step in enumerate((0, 4, 8)):
        about = PngInfo()
        about.add_text("step", str(step))
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(
            tmp_path / f"pictures/views-epoch000{epoch}.png", pnginfo=about
        )
    table = CSVCurves(tmp_path / "logs")
    for step in (2, 4, 6, 8):
        table.log_metrics({"train/loss": 1.0}, step)
    made = logger(tmp_path)
    made.go_on(8, {})
    with wandb_run_ended():
        made.log_image("views", [np.ones((8, 8), np.uint8)], step=8)  # of the epoch that begins, drawn again
        folder = Path(made.run.dir).parent
    with_pictures = {row["_step"]: row["views/count"] for row in history(folder) if "views/count" in row}
    assert with_pictures == {0: 1, 4: 1, 8: 1}
    assert len(list((folder / "files/media/images").glob("*.png"))) == 3


def test_scores_are_a_table_and_summary_values(tmp_path):
    (tmp_path / "metrics.csv").write_text(SCORES)
    made = logger(tmp_path)
    with wandb_run_ended():
        made.log_metrics({"train/loss": 1.0}, 1)
        folder = Path(made.run.dir).parent
        log_scores(tmp_path / "metrics.csv")
    (table,) = (folder / "files/media/table").glob("scores_*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == SCORES.splitlines()[0].split(",")
    assert content["data"][1] == ["replicate", "A", "mean_average_precision", 0.25, None, None, 6, 0.1, "exact"]
    assert summary(folder)["score/replicate/mean_average_precision"] == 0.5
    assert history(folder)[-1]["_step"] == 1


def test_without_an_open_run_scores_go_nowhere(tmp_path):
    (tmp_path / "metrics.csv").write_text(SCORES)
    log_scores(tmp_path / "metrics.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


class Server:
    """What `wandb.init` gives online for a run of which the server has the steps before `starting_step`."""

    offline, resumed, url = False, True, "https://example.org/run"

    def __init__(self, folder: Path, starting_step: int) -> None:
        self.dir, self.starting_step, self.rows = str(folder / "wandb/run-1/files"), starting_step, []

    def log(self, values, step):
        self.rows.append((step, values["train/loss"]))


@pytest.mark.parametrize(
    ("starting_step", "sent"),
    [
        (2, [(2, 0.2), (3, 0.3), (4, 40.0), (5, 50.0)]),  # lost by a kill: sent again
        (5, [(5, 50.0)]),  # already there: wandb would refuse them
    ],
)
def test_online_each_step_is_sent_once(tmp_path, monkeypatch, starting_step, sent):
    import wandb

    table = CSVCurves(tmp_path / "logs")
    for step in (1, 2, 3):
        table.log_metrics({"train/loss": step / 10}, step)
    server = Server(tmp_path, starting_step)
    monkeypatch.setattr(wandb, "init", lambda **options: server)
    made = logger(tmp_path, offline=False)
    made.go_on(3, {})
    for step in (4, 5):
        made.log_metrics({"train/loss": step * 10.0}, step)
    assert server.rows == sent


def test_a_logger_whose_package_is_missing_is_one_line(monkeypatch):
    for name, target in (("wandb", WANDB["_target_"]), ("tensorboard", "pytorch_lightning.loggers.TensorBoardLogger")):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=f"logger={name} needs the package {name}: pip install {name}"):
            check_loggers({"csv": {"_target_": "morphoclip.training.curves.CSVCurves"}, name: {"_target_": target}})


@pytest.mark.parametrize("missing", ["package", "key"])
def test_a_start_is_refused_before_anything_is_prepared(tmp_path, monkeypatch, capsys, missing):
    if missing == "package":
        monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit) as stop:
        main("train", ["logger=wandb", f"output_dir={tmp_path}/outputs"])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert ("pip install wandb" if missing == "package" else "run `wandb login`") in line
    assert not (tmp_path / "outputs").exists()


def test_uploading_needs_a_key(monkeypatch):
    with pytest.raises(ValueError, match=r"no API key here .*wandb login`, or set logger.wandb.offline=true"):
        check_loggers({"wandb": WANDB})
    check_loggers({"wandb": {**WANDB, "offline": True}})
    check_loggers(None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_loggers({"wandb": WANDB})


def test_a_run_that_fails_is_marked_so(monkeypatch):
    ended = []
    run = SimpleNamespace(finish=lambda exit_code: ended.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))
    with pytest.raises(RuntimeError), wandb_run_ended():
        raise RuntimeError
    with wandb_run_ended():
        pass
    assert ended == [1, 0]
