"""The online kNN finds planted replicates, asks the same wells every time, and leaves training as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from morphoclip.batch import Batch
from morphoclip.data.loading.loader import Loader
from morphoclip.training.online_knn import OnlineKNN, choose_crops, well_scores
from tests.methods.tiny import bags, loader, simclr, trainer


class Mixture:
    """Three plates of eight wells, two crops each: perturbations 0-5 on all plates, 6 on one, 7 is control.

    What is seen in a crop follows from its perturbation alone where `planted`, else from nothing.
    """

    def __init__(self, planted: bool) -> None:
        field = np.arange(24)
        perturbation = np.where(field == 22, 8, field % 8)
        self.codes = SimpleNamespace(
            plate=field // 8,
            well=field,
            position=48 * (field % 2) + field % 8,
            perturbation=perturbation,
            is_control=perturbation == 7,
        )
        draws = torch.Generator().manual_seed(0)
        looks = torch.randint(0, 1000, (9 if planted else 24, 5, 16, 16), generator=draws)
        self.images = looks[torch.from_numpy(perturbation if planted else field)]

    def __len__(self) -> int:
        return 48

    def fields_of(self, items):
        return np.asarray(items) // 2

    def __getitem__(self, items) -> Batch:
        field = torch.from_numpy(self.fields_of(items))
        codes = {name: torch.from_numpy(values)[field] for name, values in vars(self.codes).items()}
        noise = torch.from_numpy(np.asarray(items))[:, None, None, None] % 2
        limits = {"low": torch.zeros(len(field), 5), "high": torch.full((len(field), 5), 1000.0)}
        images = (self.images[field] + noise).to(torch.uint16)
        return Batch(images=images, condition=codes["perturbation"], **limits, **codes)


def test_chosen_are_whole_perturbations_on_shared_plates():
    mixture = Mixture(planted=True)
    rows = choose_crops(mixture, crops=1000, crops_per_well=2, plates=2).numpy()
    field = mixture.fields_of(rows)
    assert len(set(mixture.codes.plate[field])) == 2
    assert set(mixture.codes.perturbation[field]) - {6} == {0, 1, 2, 3, 4, 5, 7}  # 8 is on one plate only
    assert (mixture.codes.perturbation[field[-4:]] == 7).all()  # controls come last
    assert len(set(rows)) == len(rows)
    few = choose_crops(mixture, crops=5, crops_per_well=1, plates=2).numpy()
    perturbation = mixture.codes.perturbation[mixture.fields_of(few)]
    assert len(few) == 6 + 2
    assert (np.unique(perturbation, return_counts=True)[1] == 2).all()
    assert np.array_equal(few, choose_crops(mixture, crops=5, crops_per_well=1, plates=2).numpy())


def test_no_perturbation_on_two_plates_says_what_to_do():
    mixture = Mixture(planted=True)
    mixture.codes.plate[:] = 0
    with pytest.raises(ValueError, match=r"remove callbacks\.knn"):
        choose_crops(mixture, crops=10, crops_per_well=1, plates=2)


def score(planted: bool, **kw) -> dict[str, float]:
    callback, method, run = OnlineKNN(**kw), simclr(), trainer(1)
    callback.mixture = Mixture(planted)
    callback.rows = choose_crops(callback.mixture, 1000, 2, 3)
    return callback.scores(run, method)


def test_planted_replicates_are_found_and_noise_is_not():
    planted, noise = score(True), score(False)
    assert planted["val/knn"] == 1
    assert planted["val/knn_chance"] == noise["val/knn_chance"] == pytest.approx(2 / 13, abs=0.02)
    assert noise["val/knn"] < 0.6
    assert score(True, batch_size=5) == planted


def test_wells_of_the_validation_split_are_asked_where_there_is_one():
    training, validation = Mixture(planted=False), Mixture(planted=True)
    for loader_of_split, expected in (([], training), (Loader(validation, range(3)), validation)):
        data = SimpleNamespace(mixture=training, val_dataloader=lambda given=loader_of_split: given)
        callback = OnlineKNN()
        callback.on_train_start(SimpleNamespace(datamodule=data, global_step=1, loggers=[]), simclr())
        assert callback.mixture is expected
        assert len(callback.rows)


def test_a_position_effect_of_controls_is_reported():
    draws = torch.Generator().manual_seed(0)
    plate, position = torch.arange(3).repeat_interleave(16), torch.arange(16).repeat(3) * 48
    profiles = torch.randn(16, 6, generator=draws).repeat(3, 1)  # what a well shows is its row
    perturbation, control = torch.zeros(48, dtype=torch.int64), torch.ones(48, dtype=torch.int64)
    found = well_scores(profiles, plate, perturbation, position, control)
    assert found["val/control_row"] == 1
    assert found["val/control_row_chance"] == pytest.approx(1 / 16)
    assert found["val/control_column"] == found["val/control_column_chance"] == 1  # they have but one column
    assert "val/knn" not in found


def test_it_is_logged_before_training_and_at_its_end_and_changes_no_weight():
    seen = []

    class Watch(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            seen.append(metrics)

    class Data(pl.LightningDataModule):
        mixture = Mixture(planted=True)

        def train_dataloader(self):
            return loader(bags())

        def val_dataloader(self):
            return []

    plain, watched = simclr(), simclr()
    trainer(2).fit(plain, loader(bags()))
    run = trainer(2, callbacks=[OnlineKNN(every_n_epochs=100)], logger=Watch())
    run.fit(watched, datamodule=Data())
    scored = [metrics["val/knn"] for metrics in seen if "val/knn" in metrics]
    assert len(scored) == 2
    assert run.callback_metrics["val/knn"].item() == scored[-1]
    for expected, parameter in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(expected, parameter)
    assert watched.encoder.training
