"""wandb offline over a kill and a resume: one id, each step once, the curves of metrics.csv, pictures and scores."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from morphoclip.experiment.environment import read_starts
from morphoclip.experiment.run_table import read_run
from tests.reliability.commands import STEPS, TINY, begin, curves, end, record, start, wait_for_step
from tests.wandb_files import history, run_record, summary

# A self-supervised method, since those draw pictures.
SELF_SUPERVISED = [
    *[argument for argument in TINY if not argument.startswith(("data.loader.", "trainer.max_steps"))],
    *["experiment=kim2025_simclr_debug", "data.loader.global_batch_size=32", f"trainer.max_steps={STEPS}"],
    *["callbacks.checkpoint.every_n_train_steps=5", "callbacks.checkpoint.monitor=null", "callbacks.knn=null"],
    *["logger=wandb", "logger.wandb.offline=true", "callbacks.pictures.every_n_epochs=1"],
]


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    """Keeps wandb's own files out of the home folder."""
    return dict.fromkeys(("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"), str(tmp_path))


def whole_folder(run: Path) -> Path:
    """The one folder of wandb that is not replaced."""
    (found,) = (run / "wandb").glob("offline-run-*")
    return found


def test_a_run_killed_and_resumed_is_one_wandb_run_with_each_step_once(outputs, env):
    run = outputs / "kim2025_simclr_debug/watched"
    process = begin(*SELF_SUPERVISED, f"output_dir={outputs}", "run_id=watched", env=env)
    wait_for_step(process, run, 13)
    os.kill(process.pid, signal.SIGKILL)
    status, _ = end(process)
    assert status == -signal.SIGKILL
    killed, logged = whole_folder(run), curves(run)[-1]
    assert read_run(run).state == "died"
    output = start(f"resume={run}", env=env)
    checkpoint = int(output.split("goes on at step ")[1].split(":")[0])
    assert 0 < checkpoint < int(logged["step"])  # some steps are trained and logged again
    assert (record(run)["state"], read_run(run).state) == ("finished", "done")
    assert [len(known["datasets"]) for known in read_starts(run)] == [1, 1]

    folder = whole_folder(run)
    assert [path.name for path in (run / "wandb/replaced").iterdir()] == [killed.name]
    assert run_record(folder).run_id == "kim2025_simclr_debug-watched"
    assert f"wandb sync {folder}" in output
    rows = history(folder)
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    trained = {row["_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert trained == {int(row["step"]): float(row["train/loss"]) for row in curves(run) if row["train/loss"]}
    assert list(trained) == list(range(1, STEPS + 1))
    pictures = [row["_step"] for row in rows if "views/_type" in row]
    assert pictures[0] == 0
    assert pictures[-1] > checkpoint
    assert len(list((folder / "files/media/images").glob("views_*.png"))) == len(pictures)


@pytest.mark.slow
def test_the_score_table_of_a_run_is_logged(outputs, env):
    scored = ["score=heldout", "score.encoders=null", "score.tasks=[replicate]", "score.null_size=100", "run_id=scored"]
    start(*[a for a in SELF_SUPERVISED if a != "score=none"], *scored, f"output_dir={outputs}", env=env)
    run = outputs / "kim2025_simclr_debug/scored"
    folder = whole_folder(run)
    (table,) = (folder / "files/media/table").glob("scores_*.table.json")
    logged = json.loads(table.read_text())["data"]
    main = next(row for row in logged if row[:3] == ["replicate", "all", "mean_average_precision"])
    assert main[3] == pytest.approx(read_run(run).scores["replicate"].value)
    assert summary(folder)["score/replicate/mean_average_precision"] == main[3]
    assert history(folder)[-1]["_step"] == STEPS
