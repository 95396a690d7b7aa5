"""A collapse is told after it lasted, once, and by the monitor that shows it."""

from types import SimpleNamespace

import pytest
import torch

from morphoclip.training.alarms import CollapseAlarm
from tests.methods.tiny import bags, loader, simclr, trainer

HEALTHY = {"rank_me": 40.0, "mean_cosine": 0.3, "prototypes": 30.0, "max_probability": 20.0}
COLLAPSED = {"rank_me": 1.01, "mean_cosine": 0.9999, "prototypes": 1.0, "max_probability": 1.0}


class Module:
    def __init__(self):
        self.logged = []

    def log(self, name, value, **_):
        self.logged.append((name, value))


def run(alarm, module, **readings):
    module.collapse = {name: torch.tensor(value) for name, value in readings.items()}
    alarm.on_train_batch_end(SimpleNamespace(global_step=7), module, None, [0], 0)


@pytest.mark.parametrize("what", HEALTHY)
def test_each_monitor_alarms_after_its_patience(what, recwarn):
    alarm, module = CollapseAlarm(patience=3), Module()
    for _ in range(2):
        run(alarm, module, **{**HEALTHY, what: COLLAPSED[what]})
    run(alarm, module, **HEALTHY)  # it recovered
    for _ in range(2):
        run(alarm, module, **{**HEALTHY, what: COLLAPSED[what]})
    assert not recwarn.list
    for _ in range(2):
        run(alarm, module, **{**HEALTHY, what: COLLAPSED[what]})
    assert [str(w.message).startswith(f"step 7: the run collapses, {what} =") for w in recwarn.list] == [True]
    assert [value for _, value in module.logged] == [0, 0, 0, 0, 0, 1, 1]


def test_it_reads_what_a_method_reports():
    method = simclr(monitor_every=1)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.zero_()  # every crop has the same embedding
    method.encoder.backbone.fc_norm.bias.data.fill_(1.0)
    with pytest.warns(UserWarning, match="the run collapses, mean_cosine"):
        trainer(2, callbacks=[CollapseAlarm(patience=2)]).fit(method, loader(bags(), bags()))
