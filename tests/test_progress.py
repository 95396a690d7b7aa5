"""Progress is a bar on a terminal and lines in a log file."""

from __future__ import annotations

import time

import pytest

from morphoclip import progress
from morphoclip.progress import counted, progress_bar, stage


@pytest.mark.parametrize("seconds", [0.0, 1e6])
def test_in_a_log_file_progress_is_lines_every_so_often(seconds, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", seconds)
    with progress_bar(total=50, unit="crop", desc="embed") as bar:
        for _ in range(50):
            bar.update()
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert (len(lines) > 20) if seconds == 0 else (len(lines) <= 2)
    assert lines[-1].startswith("embed: 50/50 [")


def test_it_can_be_switched_off(capsys):
    assert list(progress_bar(range(3), unit="crop", show=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_terminal", lambda: True)
    assert list(progress_bar(range(3), unit="crop", desc="embed")) == [0, 1, 2]
    assert "\r" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_shows_time_left_once_it_takes_long(terminal, monkeypatch, capsys):
    monkeypatch.setattr(progress, "is_terminal", lambda: terminal)
    for seconds, name, shown in ((0.05, "p-values", True), (60.0, "p-values", False), (0.05, "", False)):
        monkeypatch.setattr(progress, "QUIET_SECONDS", seconds)
        with stage(name):
            assert [time.sleep(0.02) or i for i in counted(range(10), unit="group", total=10)] == list(range(10))
        text = capsys.readouterr().err
        assert ("p-values: " in text and "10 [00:00<00:00" in text) == shown, text
        assert shown or not text
