"""What submitit's jobs do near their time limit: the training saves a checkpoint first, then submitit requeues the job."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def saving_before_requeue() -> Iterator[None]:
    """Within the block, submitit's signal (SIGUSR2) ends a training as SIGUSR1 does, and submitit's handler comes after.

    By itself that handler requeues the job at once, in the middle of a step and without a checkpoint. No effect outside
    of a job of submitit.
    """
    requeue = signal.getsignal(signal.SIGUSR2)
    if not callable(requeue) or "SUBMITIT_EXECUTOR" not in os.environ:
        yield
        return
    asked: list[FrameType | None] = []

    def handle(number: int, frame: FrameType | None) -> None:
        asked.append(frame)
        os.kill(os.getpid(), signal.SIGUSR1)

    signal.signal(signal.SIGUSR2, handle)
    try:
        yield
    except SystemExit:
        if asked:
            requeue(signal.SIGUSR2, asked[0])
        raise
    finally:
        signal.signal(signal.SIGUSR2, requeue)
