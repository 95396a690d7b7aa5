"""Trials as jobs on Slurm, submitted by submitit."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JOB = "job.txt"  # in a trial's folder: the id of its job
ALIVE = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "REQUEUED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
}
# Names of submitit for any cluster; all others are Slurm's own.
SHARED = {
    "name",
    "timeout_min",
    "nodes",
    "tasks_per_node",
    "gpus_per_node",
    "cpus_per_task",
    "mem_gb",
    "stderr_to_stdout",
}
# What several ranks need to find each other.
SETUP = (
    'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    "export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
)


@dataclass
class Job:
    """A trial that runs as a Slurm job; `poll_s` is the time between two questions to Slurm."""

    id: str
    poll_s: float
    _asked_at: float = -1e9
    _state: str = "PENDING"

    def has_ended(self) -> bool:
        return self.state() not in ALIVE

    def state(self) -> str:
        """The state by `squeue`, asked again after `poll_s`; GONE if Slurm has forgotten the job."""
        if self._state in ALIVE and time.monotonic() - self._asked_at >= self.poll_s:
            self._asked_at = time.monotonic()
            self._state = state_of(self.id) or self._state
        return self._state

    def how(self) -> str:
        return f"job {self.id} ended with state {self.state()}"

    def interrupt(self) -> None:
        """Ask its ranks to save a checkpoint and end; a job that has not started is cancelled."""
        if self.state() == "RUNNING":
            _ask("scancel", "--signal=USR1", self.id)
        else:
            self.kill()

    def kill(self) -> None:
        _ask("scancel", self.id)


class Jobs:
    """Submits trials as Slurm jobs, which go on if the sweep's process ends.

    Args:
        folder: for submitit's files.
        train: called in each rank of a job with the arguments of `morphoclip train`.
        resources: keywords of submitit and of sbatch (`partition`, `gpus_per_node`, `timeout_min`, …).
        poll_s: seconds between two looks at the jobs.

    Raises:
        ImportError: submitit is not installed.
        RuntimeError: there is no Slurm here.
        ValueError: an unknown resource.
    """

    runs_on_alone = True

    def __init__(
        self, folder: Path, train: Callable[[Sequence[str]], None], resources: Mapping[str, Any], poll_s: float = 15.0
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ImportError("trials as Slurm jobs need submitit: pip install 'morphoclip[sweep]'") from error
        self.poll_s = poll_s
        self.train = train
        given = {"name": folder.name, "setup": list(SETUP), "stderr_to_stdout": True, **resources}
        if _ask("squeue", "--version") is None:
            raise ValueError(
                "launcher.type=slurm: there is no Slurm here (squeue was not found); use launcher.type=local"
            )
        self.executor = submitit.AutoExecutor(folder=folder / "submitit", cluster="slurm", slurm_max_num_timeout=1000)
        try:
            self.executor.update_parameters(**{k if k in SHARED else f"slurm_{k}": v for k, v in given.items()})
        except (TypeError, NameError, AssertionError, ValueError) as error:
            raise ValueError(f"launcher: {error}; its keywords are those of submitit's executor for Slurm") from error

    def start(self, arguments: Sequence[str], folder: Path) -> Job:
        """Submit a trial."""
        job = self.executor.submit(self.train, list(arguments))
        (folder / JOB).write_text(f"{job.job_id}\n")
        return Job(job.job_id, self.poll_s)

    def taken_up(self, folder: Path) -> Job | None:
        """The job of a trial that a former process of the sweep has submitted, if it waits or runs."""
        path = folder / JOB
        job = Job(path.read_text().strip(), self.poll_s) if path.is_file() else None
        return None if job is None or job.has_ended() else job

    def output(self, folder: Path) -> Path | None:
        """The file of what the first rank of a trial's last job has printed."""
        job = folder / JOB
        return Path(self.executor.folder) / f"{job.read_text().strip()}_0_log.out" if job.is_file() else None


def state_of(job: str) -> str | None:
    """The state of a job; GONE if Slurm has forgotten it, None if Slurm does not answer."""
    done = subprocess.run(
        ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return "GONE" if "Invalid job id" in done.stderr else None
    return (done.stdout.split() or ["GONE"])[0]


def _ask(*command: str) -> str | None:
    """What a command of Slurm prints; None if it fails or is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
