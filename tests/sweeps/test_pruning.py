"""The callback that ends a trial, and what the run then records."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from morphoclip.experiment.runs import _recorded, read_record
from morphoclip.training.interrupts import PRUNED, Interrupted
from morphoclip.training.pruning import REQUEST, TRIAL, Pruning, pruning_of


class Line(pl.LightningModule):
    """A linear model that writes the request to end at a step."""

    def __init__(self, folder, at: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.folder, self.at = folder, at

    def training_step(self, batch, index):
        if self.global_step == self.at:
            (self.folder / REQUEST).touch()
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, callbacks, **options) -> pl.Trainer:
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(accelerator="cpu", max_steps=12, default_root_dir=folder, callbacks=callbacks, **off, **options)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trial_ends_at_the_step_at_which_it_was_asked_to(tmp_path, accumulate):
    fit = trainer(tmp_path, [Pruning(tmp_path, seconds=0)], accumulate_grad_batches=accumulate)
    with pytest.raises(Interrupted) as stop, _recorded(tmp_path):
        fit.fit(Line(tmp_path, at=3), torch.utils.data.DataLoader(torch.zeros(100, 1)))
    assert (stop.value.status, fit.global_step) == (PRUNED, 4)
    record = read_record(tmp_path)
    assert (record["state"], record["reason"]) == ("pruned", "pruned: its values are worse than those of other trials")
    assert not (tmp_path / REQUEST).exists()  # the run can be gone on with


def test_a_run_that_nobody_asks_trains_to_its_end(tmp_path):
    fit = trainer(tmp_path, [Pruning(tmp_path, seconds=0)])
    fit.fit(Line(tmp_path, at=-1), torch.utils.data.DataLoader(torch.zeros(100, 1)))
    assert fit.global_step == 12


def test_only_a_trial_has_the_callback(tmp_path):
    assert pruning_of(tmp_path) == []
    (tmp_path / TRIAL).touch()
    assert [type(callback) for callback in pruning_of(tmp_path)] == [Pruning]
