"""A lock for objects that are pickled or used after a fork."""

from __future__ import annotations

import os
from threading import Lock


class ProcessLock:
    """A lock between the threads of one process. It is free after a fork, and pickling gives a new lock."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._owner, self._lock = os.getpid(), Lock()

    def __enter__(self) -> None:
        if self._owner != os.getpid():
            self._renew()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple:
        return (ProcessLock, ())
