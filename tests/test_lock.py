"""A lock is held by one process, and is taken over from one that has died."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from morphoclip import lock as lock_module
from morphoclip.lock import FolderLock, Holder

HOLD = "import sys, time; from morphoclip.lock import FolderLock; FolderLock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run.lock"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def write_holder(path, holder: Holder, silent: float = 0.0) -> None:
    path.write_text(json.dumps(vars(holder)))
    os.utime(path, (time.time() - silent,) * 2)


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path, other):
    with pytest.raises(BlockingIOError, match=rf"process {other.pid} on {os.uname().nodename} writes to {tmp_path}"):
        FolderLock(tmp_path / "run.lock").acquire()


def test_a_killed_holder_is_named_and_replaced(tmp_path, other):
    other.kill()
    other.wait()
    with FolderLock(tmp_path / "run.lock") as lock:
        assert lock.taken_from == Holder(os.uname().nodename, other.pid)


def test_patience_waits_for_the_holder_to_end(tmp_path, other, capsys):
    os.kill(other.pid, 15)
    FolderLock(tmp_path / "run.lock").acquire(patience=30).release()


def test_a_released_lock_leaves_nothing(tmp_path):
    with FolderLock(tmp_path / "run.lock") as lock:
        assert (tmp_path / "run.lock").is_file()
    assert lock.taken_from is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("silent", "stale"), [(5.0, False), (lock_module.DEAD_AFTER + 5, True)])
def test_a_holder_on_another_host_is_dead_when_it_gives_no_sign_of_life(tmp_path, silent, stale):
    path = tmp_path / "run.lock"
    write_holder(path, Holder("elsewhere", 17), silent)
    if not stale:
        with pytest.raises(BlockingIOError, match="process 17 on elsewhere"):
            FolderLock(path).acquire()
        return
    assert FolderLock(path).acquire().taken_from == Holder("elsewhere", 17)


def test_a_requeued_job_takes_its_own_lock_at_once(tmp_path):
    path = tmp_path / "run.lock"
    write_holder(path, Holder("elsewhere", 17, "slurm-3"))
    with pytest.raises(BlockingIOError):
        FolderLock(path, "slurm-4").acquire()
    FolderLock(path, "slurm-3").acquire().release()


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT", 0.05)
    with FolderLock(tmp_path / "run.lock"):
        os.utime(tmp_path / "run.lock", (0, 0))
        time.sleep(0.5)
        assert (tmp_path / "run.lock").stat().st_mtime > 0


def test_where_a_file_system_has_no_locks_the_process_is_looked_for(tmp_path, monkeypatch, other):
    monkeypatch.setattr(lock_module, "_lock", lambda file: None)
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path / "run.lock").acquire()
    other.kill()
    other.wait()
    assert FolderLock(tmp_path / "run.lock").acquire().taken_from.pid == other.pid
