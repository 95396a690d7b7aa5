"""Validation: the same batches and draws each time, nothing of the training changed, curves and best.ckpt by steps."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from morphoclip.methods.held_out_prompts import HeldOutPrompts
from morphoclip.training.checkpointing import Checkpoints, WholeCheckpoints
from morphoclip.training.early_stopping import EarlyStopping
from morphoclip.training.validation import Validation
from tests.methods.tiny import METHODS, batch_of, clip, loader, simclr, trainer


class Data(pl.LightningDataModule):
    """Training on the tiny bags, validation on others; `passes` counts the validations."""

    def __init__(self, name: str, batches: int = 2, steps: int = 1) -> None:
        super().__init__()
        self.name, self.batches, self.steps = name, batches, steps

    def train_dataloader(self):
        return loader(*[batch_of(self.name)] * self.steps)

    def val_dataloader(self):
        half = batch_of(self.name, slice(0, 4))
        return [half, batch_of(self.name)][: self.batches]


class Rows(pl.loggers.logger.DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict] = []

    def log_metrics(self, metrics, step=None):
        self.rows.append({**metrics, "step": step})


def with_held_out(method):
    if hasattr(method, "held_out"):
        said = ["ibuprofen in HeLa", "taxol in HeLa", "taxol in U2OS", "DMSO in HeLa", "loss of PLK1"]
        method.held_out = HeldOutPrompts(method.conditions, said, ["compound"] * 5, [""] * 5)
    return method


@pytest.mark.parametrize("name", METHODS)
def test_it_changes_nothing_of_the_training_and_measures_the_same_for_the_same_weights(name):
    plain, watched = METHODS[name](), with_held_out(METHODS[name]())
    trainer(2).fit(plain, loader(batch_of(name)))
    callback, rows = Validation(every_n_epochs=1), Rows()
    run = trainer(2, callbacks=[callback], logger=rows)
    run.fit(watched, datamodule=Data(name))
    for expected, parameter in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(expected, parameter)
    assert watched.encoder.training
    assert not watched.is_validating
    losses = [row["val/loss"] for row in rows.rows if "val/loss" in row]
    assert len(losses) == 3  # before training and after two epochs of a step
    assert len(set(losses)) == 3
    again = callback.scores(run, watched)
    assert again == callback.scores(run, watched)
    assert again["val/loss"] == pytest.approx(losses[-1])


def test_the_loss_is_the_mean_over_items_of_the_batches_losses():
    method, callback = simclr(), Validation()
    run = trainer(1, callbacks=[callback])
    data = Data("simclr")
    run.fit(method, datamodule=data)
    method.eval()
    method.is_validating = True
    with torch.no_grad():
        parts = [(len(b), method.training_step(b, i)["loss"]) for i, b in enumerate(data.val_dataloader())]
    method.is_validating = False
    expected = sum(count * loss for count, loss in parts) / sum(count for count, _ in parts)
    assert callback.scores(run, method)["val/loss"] == pytest.approx(float(expected), rel=1e-6)


def test_image_text_methods_rank_the_held_out_prompts():
    method, callback = with_held_out(clip()), Validation()
    run = trainer(1, callbacks=[callback])
    run.fit(method, datamodule=Data("clip"))
    found = callback.scores(run, method)
    assert found["val/recall_at_1_image_to_text_chance"] == pytest.approx(1 / 4)  # of five prompts one has no image
    assert 0 <= found["val/recall_at_1_image_to_text"] <= 1
    assert not any("held_out" in key or "taxol" in str(value) for key, value in method.hparams.items())
    assert not any("held_out" in key for key in method.state_dict())


def test_without_a_validation_split_nothing_is_measured():
    rows = Rows()
    trainer(1, callbacks=[Validation()], logger=rows).fit(simclr(), datamodule=Data("simclr", batches=0))
    assert not any("val/loss" in row for row in rows.rows)


def test_by_steps_it_measures_within_an_epoch_and_keeps_the_best(tmp_path):
    callback, rows, method = Validation(every_n_epochs=None, every_n_steps=2), Rows(), simclr()
    checkpoints = Checkpoints(tmp_path, every_minutes=None, every_epoch=False, monitor="val/loss", mode="min")
    run = trainer(
        6,
        callbacks=[callback, checkpoints],
        logger=rows,
        enable_checkpointing=True,
        log_every_n_steps=1,
        plugins=[WholeCheckpoints()],
    )
    run.fit(method, datamodule=Data("simclr", steps=8))
    measured = {row["step"]: row["val/loss"] for row in rows.rows if "val/loss" in row}
    assert list(measured) == [0, 2, 4, 6]
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    after = {step: loss for step, loss in measured.items() if step}
    assert best["global_step"] == min(after, key=after.get)


class Planned(Validation):
    """Gives planned values instead of measuring."""

    def __init__(self, values: list[float], **options) -> None:
        super().__init__(**options)
        self.values = iter(values)

    def scores(self, trainer, pl_module):
        return {"val/loss": next(self.values)}


@pytest.mark.parametrize(
    ("values", "patience", "ends"),
    [([9, 5, 4, 4, 3, 3, 3.5, 2, 1], 2, 12), ([9, 8, 7, 6, 5, 4, 3, 2, 1], 2, 16), ([9, 9, 9.5, 9.5, 9, 1], 3, 8)],
)
def test_early_stopping_counts_measurements_without_a_better_value(values, patience, ends):
    callbacks = [Planned(values, every_n_epochs=None, every_n_steps=2), EarlyStopping("val/loss", patience)]
    run = trainer(16, callbacks=callbacks)
    run.fit(simclr(), datamodule=Data("simclr", steps=20))
    assert run.global_step == ends


def test_early_stopping_goes_on_from_its_state_and_is_off_by_default():
    first = EarlyStopping("val/loss", 2)
    first.best, first.waited, first._seen = -3.0, 1, 8
    second = EarlyStopping("val/loss", 2)
    second.load_state_dict(first.state_dict())
    assert (second.best, second.waited, second._seen) == (-3.0, 1, 8)
    callbacks = [Planned([1, 2, 3, 4, 5], every_n_epochs=None, every_n_steps=1), EarlyStopping()]
    run = trainer(4, callbacks=callbacks)
    run.fit(simclr(), datamodule=Data("simclr", steps=20))
    assert run.global_step == 4
    with pytest.raises(ValueError, match="give max or min"):
        EarlyStopping("val/loss", mode="least")
