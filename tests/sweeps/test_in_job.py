"""The order of saving and requeueing in a job of submitit, whose own handler would requeue in the middle of a step."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from morphoclip.experiment.sweeps.in_job import saving_before_requeue


@pytest.fixture
def events(monkeypatch):
    """What happened, in order; submitit's handler and a training's are installed."""
    found: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")

    def saved(number, frame):
        found.append("saved")
        sys.exit(138)

    signal.signal(signal.SIGUSR2, lambda number, frame: found.append("requeued"))
    signal.signal(signal.SIGUSR1, saved)
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_training_saves_before_its_job_is_requeued(events):
    with pytest.raises(SystemExit), saving_before_requeue():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert events == ["saved", "requeued"]


def test_a_job_that_ends_for_another_reason_is_not_requeued(events):
    with pytest.raises(SystemExit), saving_before_requeue():
        sys.exit(143)
    assert events == []
    os.kill(os.getpid(), signal.SIGUSR2)  # submitit's own handler is back
    assert events == ["requeued"]


def test_outside_of_a_job_the_signal_is_left_alone(events, monkeypatch):
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    with saving_before_requeue():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert events == ["requeued"]
