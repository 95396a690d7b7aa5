"""The working folder of a dataset in the making: claimed by one process, and a full disk explained."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def room_for(folder: Path) -> Iterator[None]:
    """Say what to do where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"no room to write {folder}: free some space or name another disk (what was written is removed)",
        ) from error


def claim(folder: Path) -> int:
    """Lock the working folder and empty it of what a killed writer left; returns the lock's file descriptor."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FileExistsError(f"another process is writing {folder}: wait for it or name another folder") from None
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock
