"""When checkpoints are saved and which are kept; each can be exported."""

from __future__ import annotations

import pytest
import torch

from morphoclip.checkpoints import read_checkpoint, step_of
from morphoclip.export import export_encoder
from morphoclip.training import checkpointing
from morphoclip.training.checkpointing import Checkpoints, WholeCheckpoints
from tests.methods.tiny import bags, clip, loader, simclr, trainer

PER_EPOCH = 3


def fit(folder, steps: int = 12, method=None, **options):
    """Train epochs of three steps with these options of `Checkpoints`; returns the steps at which `last.ckpt` was saved."""
    saved: list[int] = []

    class Watched(WholeCheckpoints):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            saved.append(checkpoint["global_step"])
            super().save_checkpoint(checkpoint, path, storage_options)

    saver = Checkpoints(folder, **{"every_minutes": None, "every_epoch": False, **options})
    run = trainer(steps, callbacks=[saver], plugins=[Watched()], enable_checkpointing=True)
    run.fit(method or simclr(), loader(*[bags()] * PER_EPOCH))
    return saved


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_at_an_epochs_end_and_at_the_end(tmp_path):
    assert fit(tmp_path, 11, every_epoch=True) == [3, 6, 9, 11]
    assert names(tmp_path) == ["last.ckpt", "previous.ckpt"]


def test_by_steps(tmp_path):
    assert fit(tmp_path, every_n_train_steps=5) == [5, 10, 12]


def test_by_time(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 20))  # each look at the clock is 20 s later
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: float(next(clock)))
    assert fit(tmp_path, every_minutes=1.0) == [3, 6, 9, 12]


def test_every_nth_epoch_is_kept(tmp_path):
    fit(tmp_path, keep_every_n_epochs=2)
    assert names(tmp_path) == ["epoch0002.ckpt", "epoch0004.ckpt", "last.ckpt", "previous.ckpt"]
    assert step_of(tmp_path / "epoch0002.ckpt") == 6


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_by_a_logged_value_is_kept(tmp_path, mode):
    losses = {}
    method = simclr()

    class Losses(Checkpoints):
        def on_train_epoch_end(self, trainer, pl_module):
            losses[trainer.global_step] = float(trainer.callback_metrics["train/loss"])
            super().on_train_epoch_end(trainer, pl_module)

    saver = Losses(tmp_path, None, every_epoch=False, monitor="train/loss", mode=mode)
    trainer(12, callbacks=[saver], plugins=[WholeCheckpoints()], enable_checkpointing=True).fit(
        method, loader(*[bags()] * PER_EPOCH)
    )
    assert len(losses) == 4
    assert step_of(tmp_path / "best.ckpt") == (min if mode == "min" else max)(losses, key=losses.get)


def test_a_value_that_is_never_logged_is_said(tmp_path):
    with pytest.warns(UserWarning, match="monitor=val/none was never logged"):
        fit(tmp_path, monitor="val/none")
    with pytest.raises(ValueError, match="give max or min"):
        Checkpoints(tmp_path, mode="best")


def test_each_kept_checkpoint_can_be_exported(tmp_path):
    method = simclr()
    fit(tmp_path / "run", keep_every_n_epochs=1, monitor="train/loss", method=method)
    for name in names(tmp_path / "run"):
        export_encoder(tmp_path / "run" / name, tmp_path / name)
        assert (tmp_path / name / "model.safetensors").is_file()


def test_a_frozen_tower_lies_beside_the_checkpoints_once(tmp_path, monkeypatch):
    monkeypatch.setattr("morphoclip.methods.base.LARGE", 0)
    method = clip()
    method.encoder.requires_grad_(False)
    fit(tmp_path, method=method, every_epoch=True)
    assert len(list(tmp_path.glob("frozen-*.pt"))) == 1
    slim = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in slim if name.startswith("encoder.") and name in dict(method.named_parameters())]
    again = type(method).load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    whole = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    for name, value in method.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, whole[name])
            assert torch.equal(value, again.state_dict()[name])


def test_a_checkpoint_of_another_model_is_one_line(tmp_path):
    fit(tmp_path)
    other = simclr(head=[16, 4])
    with pytest.raises(ValueError, match=r"the weights are of another model, \d+ of another shape") as error:
        other.load_state_dict(read_checkpoint(tmp_path / "last.ckpt")["state_dict"])
    assert "\n" not in str(error.value)


def test_a_full_disk_is_reported_and_training_goes_on(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "write_checkpoint", full)
    with pytest.warns(UserWarning, match=r"the checkpoint of step \d+ was not saved .*No space left"):
        assert fit(tmp_path, every_epoch=True) == [3, 6, 9, 12]
