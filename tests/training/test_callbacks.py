"""Speed is counted per batch of samples, waiting apart from working."""

import time

import pytest
import pytorch_lightning as pl

from morphoclip.training.callbacks import Speed
from tests.methods.tiny import bags, loader, simclr, trainer


class SlowBatches(list):
    """A data source that lets training wait."""

    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)


def test_speed_and_the_share_of_waiting_are_logged():
    slow = loader(*[bags()] * 4)
    slow = type(slow)(SlowBatches(slow.dataset), batch_size=None)
    run = trainer(4, callbacks=[Speed(every_n_steps=4)])
    start = time.perf_counter()
    run.fit(simclr(), slow)
    elapsed = time.perf_counter() - start
    logged = run.callback_metrics
    # Four batches of six bags in less than the whole fit took, of which at least .2 s was waiting.
    assert logged["speed/samples_per_s"] > 24 / elapsed
    assert 0.2 / elapsed < logged["speed/data_wait"] < 1
    assert {"speed/samples_per_s", "speed/data_wait"} <= set(run.progress_bar_metrics)


def test_nothing_is_logged_before_a_full_window():
    run = trainer(2, callbacks=[Speed(every_n_steps=3)])
    run.fit(simclr(), loader(bags()))
    with pytest.raises(KeyError):
        run.callback_metrics["speed/data_wait"]


class Skipping(pl.LightningDataModule):
    """A data module that had to skip two damaged samples."""

    skipped = 2

    def train_dataloader(self):
        return loader(bags())


def test_skipped_samples_are_logged_where_there_are_any():
    run = trainer(1, callbacks=[Speed(every_n_steps=1)])
    run.fit(simclr(), datamodule=Skipping())
    assert run.callback_metrics["data/skipped"] == 2
    assert run.progress_bar_metrics["data/skipped"] == 2
