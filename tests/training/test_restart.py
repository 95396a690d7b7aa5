"""A training goes on from any of its checkpoints as if it had not ended, however its length and epochs are given."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from morphoclip.data import CellDataModule
from tests.methods.resume import small_screen
from tests.methods.tiny import ENCODER, simclr, trainer

STEPS = 9  # three epochs of three steps


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return small_screen(tmp_path_factory.mktemp("screen"))


class Everywhere(pl.callbacks.Checkpoint):
    """Saves where `Checkpoints` does: after each step, and at an epoch's end instead of after its last step."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        if (
            not trainer.is_last_batch
            and trainer.fit_loop.epoch_loop.batch_progress.current.ready % trainer.accumulate_grad_batches == 0
        ):
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt", weights_only=False)

    def on_train_epoch_end(self, trainer, *_):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt", weights_only=False)


class Seen(pl.Callback):
    """The wells of each step's crops."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch.well.tolist())


def train(screen, folder, checkpoint=None, limit=1.0, per_batch=None, **length):
    torch.manual_seed(0)
    method, seen = simclr(encoder=ENCODER), Seen()
    data = CellDataModule([{"root": screen}], global_batch_size=24, max_batch_size=per_batch)
    options = {"accumulate_grad_batches": data.accumulate, "limit_train_batches": limit, "enable_checkpointing": True}
    steps = length.pop("max_steps", STEPS)
    run = trainer(steps, callbacks=[seen, Everywhere(folder)], **options, **length)
    run.fit(method, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return method.state_dict(), seen.batches


@pytest.mark.parametrize("length", [{"max_steps": STEPS}, {"max_steps": -1, "max_epochs": 3}], ids=["steps", "epochs"])
@pytest.mark.parametrize("limit", [1.0, 2], ids=["whole epochs", "limit_train_batches"])
def test_every_checkpoint_goes_on_to_the_bit(screen, tmp_path, length, limit):
    weights, seen = train(screen, tmp_path / "whole", limit=limit, **length)
    for step in range(1, len(seen)):
        again, rest = train(screen, tmp_path / "again", tmp_path / f"whole/{step}.ckpt", limit=limit, **length)
        assert rest == seen[step:], step
        assert [k for k, v in weights.items() if isinstance(v, torch.Tensor) and not torch.equal(v, again[k])] == [], (
            step
        )


@pytest.mark.parametrize(("before", "after"), [(None, 8), (8, None), (12, 8)])
def test_other_batches_a_step_go_on_with_the_crops_that_come_next(screen, tmp_path, before, after):
    _, seen = train(screen, tmp_path / "whole", per_batch=before)
    for step in (1, 2, 3, 5):
        _, rest = train(screen, tmp_path / "again", tmp_path / f"whole/{step}.ckpt", per_batch=after)
        flat = [well for batch in seen for well in batch]
        assert [well for batch in rest for well in batch] == flat[24 * step :], step
