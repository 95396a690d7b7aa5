"""Trials as child processes of this machine, each on its own GPUs."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT = "output.log"  # in a trial's folder: what it printed
PR_SET_PDEATHSIG = 1  # of prctl(2)
TRAIN = (sys.executable, "-m", "morphoclip.cli.main", "train")


@dataclass
class Process:
    """A trial that runs as a child process.

    Attributes:
        slot: which of the trials at once it is, which decides its GPUs.
    """

    child: subprocess.Popen[bytes]
    slot: int

    def has_ended(self) -> bool:
        return self.child.poll() is not None

    def how(self) -> str:
        """How it ended, for a trial that could not record it."""
        status = self.child.poll()
        return f"killed by {signal.Signals(-status).name}" if status and status < 0 else f"ended with status {status}"

    def interrupt(self) -> None:
        """Ask it to save a checkpoint and end."""
        if not self.has_ended():
            self.child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it with all its ranks."""
        if not self.has_ended():
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


class Processes:
    """Starts trials as child processes; they get SIGTERM when this process dies, and then save a checkpoint.

    Args:
        n_jobs: number of trials at once.
        n_gpus: GPUs, and so ranks, of a trial; 0 for trials on the CPU.
        command: what trains, before the overrides.
    """

    poll_s = 0.5
    runs_on_alone = False  # trials do not outlive the sweep's process

    def __init__(self, n_jobs: int, n_gpus: int | None = None, command: Sequence[str] = TRAIN) -> None:
        self.gpus = visible_gpus() if n_gpus != 0 else []
        self.n_gpus = min(1, len(self.gpus)) if n_gpus is None else n_gpus
        if self.n_gpus > len(self.gpus):
            raise ValueError(f"launcher.n_gpus={n_gpus}, but {len(self.gpus)} GPUs are visible here")
        self.threads = max(1, (os.cpu_count() or 1) // n_jobs)
        self.command = list(command)
        self._busy: list[Process] = []

    def start(self, arguments: Sequence[str], folder: Path) -> Process:
        """Start a trial in the folder of its run."""
        self._busy = [process for process in self._busy if not process.has_ended()]
        slot = min(set(range(len(self._busy) + 1)) - {process.slot for process in self._busy})
        with (folder / OUTPUT).open("ab") as output:
            child = subprocess.Popen(
                [*(self.command if self.n_gpus < 2 else torchrun(self.n_gpus)), *arguments],
                env={"OMP_NUM_THREADS": str(self.threads), **os.environ, **self._devices(slot)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only the sweep, which asks its trials to end
                preexec_fn=end_with_parent,
            )
        self._busy.append(Process(child, slot))
        return self._busy[-1]

    def taken_up(self, folder: Path) -> None:
        """No trial outlives the process that started it."""

    def output(self, folder: Path) -> Path:
        """The file of what a trial has printed."""
        return folder / OUTPUT

    def _devices(self, slot: int) -> dict[str, str]:
        if not self.gpus or not self.n_gpus:
            return {}
        own = [self.gpus[(slot * self.n_gpus + i) % len(self.gpus)] for i in range(self.n_gpus)]
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)}


def torchrun(ranks: int) -> list[str]:
    """The command that trains on several GPUs of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*launcher, *TRAIN[1:]]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]


def end_with_parent() -> None:
    """Runs in the child before the program: the kernel sends it SIGTERM when its parent has died."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
