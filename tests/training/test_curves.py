"""Curves have one row per step, the means since the row before, and are cut back when a run goes on."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from morphoclip.training.curves import CSVCurves, read_rows
from tests.methods.tiny import bags, loader, simclr, trainer


class Losses(pl.Callback):
    """Keeps each step's loss."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.values.append(float(trainer.callback_metrics["train/loss"]))


class AtTheEpochsEnd(pl.Callback):
    """Logs as `OnlineKNN` does."""

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("val/score", float(trainer.current_epoch))


def fit(folder, steps: int, every: int):
    losses, logger = Losses(), CSVCurves(folder)
    run = trainer(steps, callbacks=[losses, AtTheEpochsEnd()], logger=logger, log_every_n_steps=every)
    run.fit(simclr(), loader(*[bags()] * 4))
    return losses.values, read_rows(folder / "metrics.csv")


def test_a_row_holds_the_mean_since_the_row_before(tmp_path):
    losses, rows = fit(tmp_path, 9, every=3)
    assert [int(row["step"]) for row in rows] == [3, 4, 6, 8, 9]  # and the epochs' ends
    found = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    for step, since in ((3, 0), (4, 3), (6, 4), (8, 6), (9, 8)):
        torch.testing.assert_close(found[step], sum(losses[since:step]) / (step - since), rtol=1e-6, atol=0)
    assert {row["step"]: row["val/score"] for row in rows if row["val/score"]} == {
        "4": "0.0",
        "8": "1.0",
        "9": "2.0",  # Lightning ends an epoch where the training ends
    }


def test_values_of_an_epochs_end_join_the_row_of_its_last_step(tmp_path):
    _, rows = fit(tmp_path, 8, every=4)
    assert [row["step"] for row in rows] == ["4", "8"]
    assert [row["val/score"] for row in rows] == ["0.0", "1.0"]


def test_a_table_is_cut_back_and_no_step_is_there_twice(tmp_path):
    first = CSVCurves(tmp_path)
    for step in (1, 2, 3, 4):
        first.log_metrics({"loss": step / 10}, step)
    again = CSVCurves(tmp_path)
    again.cut(2)
    again.log_metrics({"loss": 0.5}, 3)
    again.log_metrics({"score": 1.0}, 3)  # a column that is new, for a row that is there
    again.log_metrics({"loss": 0.6, "score": 2.0}, 4)
    rows = read_rows(tmp_path / "metrics.csv")
    assert [(row["step"], row["loss"], row["score"]) for row in rows] == [
        *[("1", "0.1", ""), ("2", "0.2", ""), ("3", "0.5", "1.0"), ("4", "0.6", "2.0")]
    ]


def test_a_row_that_was_cut_off_in_the_middle_is_not_read(tmp_path):
    logger = CSVCurves(tmp_path)
    logger.log_metrics({"loss": 0.1, "rate": 2.0}, 1)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("2,0.")
    again = CSVCurves(tmp_path)
    again.cut(5)
    again.log_metrics({"loss": 0.3, "rate": 2.0}, 2)
    assert [row["loss"] for row in read_rows(tmp_path / "metrics.csv")] == ["0.1", "0.3"]


def test_tensorboard_hides_what_was_logged_after_the_checkpoint(tmp_path):
    def log(steps, **purge):
        logger = TensorBoardLogger(tmp_path, name="tensorboard", version="", **purge)
        for step in steps:
            logger.log_metrics({"loss": float(step)}, step)
        logger.finalize("success")

    log([1, 2, 3, 4])
    log([3, 4, 5], purge_step=3)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]


def test_a_training_that_ends_between_two_rows_has_a_last_one(tmp_path):
    logger = CSVCurves(tmp_path)
    trainer(7, logger=logger, log_every_n_steps=3).fit(simclr(), loader(*[bags()] * 10))
    assert [int(row["step"]) for row in read_rows(tmp_path / "metrics.csv")] == [3, 6, 7]
