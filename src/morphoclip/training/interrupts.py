"""What ends a run before it is finished: signals and a time limit. A training saves a checkpoint first."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Exit statuses: the first as that of `timeout`, the second that of a trial which a sweep has asked to end.
TIME_LIMIT, PRUNED = 124, 80
REASONS = {TIME_LIMIT: "max_time is over", PRUNED: "pruned: its values are worse than those of other trials"}
DURATION = re.compile(r"(?:(?P<days>\d+):)?(?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d)")


class Interrupted(BaseException):
    """The run was asked to end; like KeyboardInterrupt, no handler of errors catches it.

    Args:
        status: exit status for the process: 128 + signal, or a key of `REASONS`.
    """

    def __init__(self, status: int) -> None:
        super().__init__(REASONS.get(status) or f"interrupted by {signal.Signals(status - 128).name}")
        self.status = status


class Interrupts:
    """Handles Ctrl-C, SIGTERM (a preemption) and SIGUSR1 (a job near its time limit) while used as a context manager.

    A request raises `Interrupted` at once, or within `deferred()` is kept for `pending`, so that a training can end at a
    step's end. A second Ctrl-C always raises at once.

    Args:
        max_time: longest duration of the run, "HH:MM:SS" or "DD:HH:MM:SS"; None for no limit.

    Raises:
        ValueError: `max_time` is neither.
    """

    def __init__(self, max_time: str | None = None) -> None:
        self._ends = None if max_time is None else time.monotonic() + seconds_of(max_time)
        self._signal: signal.Signals | None = None
        self._deferred = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        if _in_main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)  # type: ignore[arg-type]  # from getsignal

    def listen(self) -> None:
        """Install the handlers, again if a library has replaced them."""
        if _in_main_thread():  # the only one that may
            for number in SIGNALS:
                signal.signal(number, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Keep requests for `pending` within the block."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def defer(self) -> None:
        """Keep all further requests for `pending`, so that what a run does at its end is not interrupted."""
        self._deferred = True

    @property
    def pending(self) -> Interrupted | None:
        """The request that came, or None."""
        if self._signal is not None:
            return Interrupted(128 + self._signal)
        if self._ends is not None and time.monotonic() >= self._ends:
            return Interrupted(TIME_LIMIT)
        return None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self._signal == number == signal.SIGINT
        self._signal = signal.Signals(number)
        if again or not self._deferred:
            raise Interrupted(128 + number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def seconds_of(duration: str, key: str = "max_time") -> float:
    """Seconds of "HH:MM:SS" or "DD:HH:MM:SS", the value of a key of the config.

    Raises:
        ValueError: another format.
    """
    found = DURATION.fullmatch(str(duration))
    if not found:
        raise ValueError(f"{key}={duration!r}: give HH:MM:SS or DD:HH:MM:SS")
    days, hours, minutes, seconds = (int(found[part] or 0) for part in ("days", "hours", "minutes", "seconds"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
