"""The working folder of a dataset being written: a lock against other writers, and a clear error on a full disk."""

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
    """Turn the error of a full disk into one that names the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"the disk is full, cannot write {folder}: free some space or name another disk (the partial folder is removed)",
        ) from error


def claim(folder: Path) -> int:
    """Lock the working folder and remove the files of a killed writer; returns the lock's file descriptor."""
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
