"""Signals and the time limit end a run at once, or at the end of the step while it trains."""

from __future__ import annotations

import os
import signal

import pytest

from morphoclip.training.interrupts import Interrupted, Interrupts, seconds_of

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_at_once_or_waits_to_be_asked_for(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted) as stop:
            os.kill(os.getpid(), number)
        assert stop.value.status == 128 + number
    with Interrupts() as interrupts, interrupts.deferred():
        assert interrupts.pending is None
        os.kill(os.getpid(), number)
        assert interrupts.pending.status == 128 + number
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_a_training_at_once():
    with Interrupts() as interrupts, interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_run_that_ends_is_not_interrupted_again():
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGUSR1)
        interrupts.defer()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.pending.status == 143


def test_listening_again_replaces_a_handler_of_a_library():
    with Interrupts() as interrupts, interrupts.deferred():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupts.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.pending.status == 143


def test_the_time_limit():
    assert Interrupts("00:00:00").pending.status == 124
    assert Interrupts("01:00:00").pending is None
    assert seconds_of("1:02:03:04") == 93784
    with pytest.raises(ValueError, match="give HH:MM:SS"):
        Interrupts("10m")
