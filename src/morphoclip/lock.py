"""A lock on a folder, held by one process on any host that sees the folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from morphoclip.files import write_atomically

HEARTBEAT = 20.0  # seconds between two signs of life
DEAD_AFTER = 120.0  # seconds without one, for a holder on another host
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # by flock on some cluster file systems


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a process, and the cluster job it belongs to, if any."""

    host: str
    pid: int
    job: str | None = None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class FolderLock:
    """Held from `acquire` to `release`, or while used as a context manager.

    A lock file names its holder and is touched every 20 s. A lock is stale, and taken over, if its holder has died: on
    this host the kernel has then released the file; on another host it gives no sign of life for two minutes, or belonged
    to `job`, of which there is only one process at a time (a requeued job).

    Args:
        path: the lock file; its folder is made.
        job: name of the cluster job of this process.

    Attributes:
        taken_from: the holder of a stale lock that was taken over.
    """

    def __init__(self, path: str | Path, job: str | None = None) -> None:
        self.path = Path(path)
        self.own = Holder(socket.gethostname(), os.getpid(), job)
        self.taken_from: Holder | None = None
        self._file: int | None = None
        self._stop = threading.Event()

    def acquire(self, patience: float = 0.0) -> FolderLock:
        """Take the lock, waiting up to `patience` seconds while another process holds it.

        Raises:
            BlockingIOError: another process holds it; the message names it.
        """
        began, waits = time.monotonic(), False
        while not self._take():
            if time.monotonic() >= began + patience:
                raise BlockingIOError(
                    f"{self._holder()} writes to {self.path.parent} (last sign of life {self._silence():.0f} s ago): stop "
                    "it, or choose another folder"
                )
            if not waits:
                print(f"waiting for {self._holder()}, which writes to {self.path.parent}", flush=True)
            waits = True
            time.sleep(0.5)
        self._stop.clear()
        threading.Thread(target=self._beat, name=f"lock {self.path}", daemon=True).start()
        return self

    def release(self) -> None:
        """Give the lock back; no effect if it is not held."""
        if self._file is None:
            return
        self._stop.set()
        self.path.unlink(missing_ok=True)
        os.close(self._file)
        self._file = None

    def __enter__(self) -> FolderLock:
        return self if self._file is not None else self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _take(self) -> bool:
        """Take the lock if it is free or stale."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o664)
        try:
            released = _lock(file)
            holder = self._holder()
            if released is not False and self._is_current(file) and (holder is None or self._is_dead(holder, released)):
                self.taken_from = holder
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(asdict(self.own)).encode(), 0)
                self._file = file
            return self._file == file
        finally:
            if self._file != file:
                os.close(file)

    def _is_current(self, file: int) -> bool:
        """Whether the path still names the opened file, which its holder removes on release."""
        try:
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _is_dead(self, holder: Holder, released: bool | None) -> bool:
        if holder.job is not None and holder.job == self.own.job and holder != self.own:
            return True
        if holder.host == self.own.host:
            return not _is_alive(holder.pid) if released is None else True
        return self._silence() > DEAD_AFTER

    def _holder(self) -> Holder | None:
        try:
            return Holder(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):  # free, or being written
            return None

    def _silence(self) -> float:
        """Seconds since the holder touched the file, by the clock of the file system."""
        with write_atomically(self.path.with_name(f".{self.path.name}.clock")) as now:
            now.touch()
            time_now = now.stat().st_mtime
        self.path.with_name(f".{self.path.name}.clock").unlink(missing_ok=True)
        try:
            return time_now - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                os.utime(self.path)
            except OSError:  # a file system that is away for a moment
                continue


def is_held(path: Path) -> bool:
    """Whether a live process holds the lock of a file, without waiting for it or taking it over.

    On this host the kernel knows; a holder on another host gave a sign of life within two minutes, by this host's clock.
    """
    lock = FolderLock(path)
    holder = lock._holder()
    if holder is None:
        return False
    try:
        if holder.host != lock.own.host:
            return time.time() - path.stat().st_mtime <= DEAD_AFTER
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return _is_alive(holder.pid)
        raise
    finally:
        os.close(file)
    return False


def _lock(file: int) -> bool | None:
    """Lock an open file; False if another process has it locked, None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
