"""A training from Python, without the command that sets what the launch decides."""

from __future__ import annotations

from types import SimpleNamespace

from hydra import compose, initialize_config_dir

from morphoclip import configs_dir
from morphoclip.experiment.fit import callbacks_of, make_trainer
from morphoclip.training.early_stopping import EarlyStopping
from morphoclip.training.online_knn import OnlineKNN


def composed(*overrides: str):
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return compose("train", overrides=["folder=run", *overrides])


def test_the_trainer_of_a_composed_config_has_the_nodes_of_the_launch():
    trainer = make_trainer(composed(), SimpleNamespace(accumulate=3), [], [])
    assert (trainer.num_nodes, trainer.accumulate_grad_batches) == (1, 3)


def test_early_stopping_comes_after_all_that_it_may_judge():
    callbacks = callbacks_of(composed("callbacks=self_supervised"))
    assert isinstance(callbacks[-1], EarlyStopping)
    assert any(isinstance(callback, OnlineKNN) for callback in callbacks)
