"""wandb offline over a kill and a resume: one id, each step once, the curves of metrics.csv, pictures and scores."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from morphoclip.experiment.environment import read_starts
from morphoclip.experiment.run_table import read_run
from tests.reliability.commands import STEPS, TINY, begin, curves, end, record, start, wait_for_step
from tests.wandb_files import history, run_record, summary

# A self-supervised method, since those draw pictures; scored, so that there is a score table.
SELF_SUPERVISED = [
    *[argument for argument in TINY if not argument.startswith(("score=", "data.loader.", "trainer.max_steps"))],
    *[
        "experiment=kim2025_simclr_debug",
        "data.loader.global_batch_size=32",
        f"trainer.max_steps={STEPS}",
        "callbacks.checkpoint.every_n_train_steps=5",
    ],
    *["score=heldout", "score.encoders={}", "score.tasks=[replicate]", "score.null_size=100", "callbacks.knn=null"],
    *["logger=wandb", "logger.wandb.offline=true", "callbacks.pictures.every_n_epochs=1"],
]


def whole_folder(run: Path) -> Path:
    """The one folder of wandb that is not replaced."""
    (found,) = (path for path in (run / "wandb").glob("offline-run-*"))
    return found


def test_a_run_killed_and_resumed_is_one_wandb_run_with_each_step_once(outputs, tmp_path):
    env = {"HOME": str(tmp_path), "WANDB_DATA_DIR": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path)}
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
    assert [len(start["datasets"]) for start in read_starts(run)] == [1, 1]

    folder = whole_folder(run)
    assert [path.name for path in (run / "wandb/replaced").iterdir()] == [killed.name]
    assert run_record(folder).run_id == "kim2025_simclr_debug-watched"
    assert f"wandb sync {folder}" in output
    rows = history(folder)
    trained = [row for row in rows if "train/loss" in row]
    assert [row["_step"] for row in trained] == list(range(1, STEPS + 1))
    assert [row["train/loss"] for row in trained] == [float(row["train/loss"]) for row in curves(run)]
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps))
    pictures = {row["_step"] for row in rows if any(name.endswith("/_type") for name in row)}
    assert 0 in pictures
    assert max(pictures) > checkpoint
    (table,) = (folder / "files/media/table").glob("scores_*.table.json")
    assert "mean_average_precision" in table.read_text()
    main = [
        row for row in json.loads(table.read_text())["data"] if row[:3] == ["replicate", "all", "fraction_retrieved"]
    ]
    assert summary(folder)["score/replicate/fraction_retrieved"] == main[0][3]
