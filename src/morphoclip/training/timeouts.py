"""What a user reads when a rank waits for others in vain: which rank, why that happens, and what to do."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch.distributed as dist

from morphoclip.distributed import rank, world_size

TIMED_OUT = re.compile(r"timed? ?out|timeout|ran for \d+ milliseconds", re.IGNORECASE)
LOST = re.compile(r"connection (?:closed|reset|refused)|remote process|socket|broken pipe|NCCL", re.IGNORECASE)
# How messages of torch's process groups begin or which files they name.
OF_A_COLLECTIVE = re.compile(r"gloo|NCCL|ProcessGroup|Watchdog|TCPStore|c10d|pair closure", re.IGNORECASE)
REMEDY = (
    "look for the first error of another rank. If there is none: a rank that is out of memory or reads its data much slower, "
    "a step that not all ranks take, or the network between nodes (NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO). Where a rank works "
    "long by itself, raise rank_timeout. Then go on with resume=latest"
)


@contextmanager
def named_timeouts(limit: str) -> Iterator[None]:
    """Turn a collective's failure within the block into one line.

    Args:
        limit: `rank_timeout` of the config.

    Raises:
        TimeoutError: this rank waited too long for the others.
        ConnectionError: another rank has ended.
    """
    try:
        yield
    except Exception as error:
        line = failure_of_ranks(error, limit)
        if line is None:
            raise
        raise (TimeoutError if TIMED_OUT.search(str(error)) else ConnectionError)(line) from error


def failure_of_ranks(error: BaseException, limit: str) -> str | None:
    """The line for an error of a collective; None for other errors and on a single rank."""
    text = str(error)
    of_ranks = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and OF_A_COLLECTIVE.search(text))
    if world_size() == 1 or not of_ranks:
        return None
    if TIMED_OUT.search(text):
        what = f"rank {rank()} of {world_size()} waited longer than rank_timeout={limit} for the others"
    elif LOST.search(text):
        what = f"rank {rank()} of {world_size()} lost the connection to another rank, which has ended or was killed"
    else:
        return None
    return f"{what}: {REMEDY} ({' '.join(text.split())[:200]})"


class StallNote(pl.Callback):
    """Prints a line on stderr when no step has ended for nearly as long as ranks wait for each other.

    NCCL ends the process when a collective times out, without an error that Python could report.

    Args:
        seconds: that time.
        limit: how it is written in the config.
    """

    def __init__(self, seconds: float, limit: str) -> None:
        self.seconds, self.limit = 0.9 * seconds, limit
        self._last, self._step = time.monotonic(), 0
        self._ended = threading.Event()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last, self._step = time.monotonic(), trainer.global_step
        if world_size() > 1:
            name = f"rank {rank()} of {world_size()}"
            threading.Thread(target=self._watch, args=(name,), name="stalled steps", daemon=True).start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        self._last, self._step = time.monotonic(), trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ended.set()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._ended.set()

    def _watch(self, name: str) -> None:
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() - self._last > self.seconds:
                print(
                    f"{name}: step {self._step} was the last to end, {self.seconds:.0f} s ago; at rank_timeout={self.limit} "
                    f"all ranks end: {REMEDY}",
                    file=sys.stderr,
                    flush=True,
                )
                return
