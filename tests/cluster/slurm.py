"""A Slurm of this machine alone: two nodes on loopback with free ports, in a temporary folder, without munge."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "unshare")
PATIENCE = 240.0  # seconds
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
NodeName={nodes[0]} NodeHostname={nodes[0]} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 Gres=gpu:2
NodeName={nodes[1]} NodeHostname={nodes[1]} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed: {', '.join(missing)} not found (Debian: apt-get install slurm-wlm)"
    # The host name of the second node is set in a namespace of its own.
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode != 0:
        return "a Slurm of two nodes on one machine needs root"
    return None


class Slurm:
    """Running from `start` to `stop`.

    Args:
        folder: for its configuration, state and logs.
        env: further environment of the jobs.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SRUN"))}
        self.env = {**outside, "SLURM_CONF": str(folder / "slurm.conf"), **env}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        host = socket.gethostname().split(".")[0]
        nodes = [host, f"{host}-2"]
        config = CONFIG.format(host=host, user=getpass.getuser(), ports=free_ports(3), nodes=nodes, folder=self.folder)
        for name in ("state", *(f"spool-{node}" for node in nodes)):
            (self.folder / name).mkdir()
        (self.folder / "slurm.conf").write_text(config)
        gpus = [self.folder / f"gpu{number}" for number in range(2)]
        for gpu in gpus:
            gpu.touch()
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={gpu}\n" for gpu in gpus))
        self._spawn("slurmctld", "-D", "-i")
        self._spawn("slurmd", "-D")
        self._spawn("unshare", "--uts", "sh", "-c", f"hostname {nodes[1]} && exec slurmd -D")
        try:
            wait_until(lambda: self.ask("sinfo", "--noheader", "--format=%D %t", "--partition=main") == "2 idle", 60)
        except TimeoutError:
            self.stop()
            raise RuntimeError(f"Slurm did not start:\n{(self.folder / 'daemons.log').read_text()[-3000:]}") from None

    def stop(self) -> None:
        """Cancel what runs and end all processes."""
        self.ask("scancel", "--user", getpass.getuser())
        wait_until(lambda: not self.ask("squeue", "--noheader"))
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(60)

    def _spawn(self, *command: str) -> None:
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(command, env=self.env, stdout=log, stderr=log, start_new_session=True)
            )

    def ask(self, *command: str) -> str:
        """The output of one of Slurm's commands; empty if it fails."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    def submit(self, *arguments: str | Path, folder: Path, env: Mapping[str, str] | None = None) -> str:
        """Submit a job from `folder`; returns its id."""
        done = subprocess.run(
            ["sbatch", "--parsable", f"--output={self.folder}/%A-%a.log", *arguments],
            env={**self.env, **(env or {})},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def output(self, job: str, task: int = 2**32 - 2) -> str:
        """What a job, or a task of an array, has printed. The default is the number Slurm gives a job without an array."""
        log = self.folder / f"{job}-{task}.log"
        return log.read_text() if log.is_file() else ""

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, …, and for an array job the states of its tasks."""
        return self.ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`, such as ExitCode or Restarts."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(pair.split("=", 1) for pair in shown.split() if "=" in pair)[name]

    def release(self, job: str) -> None:
        """Start a requeued job now; Slurm would hold it back for two minutes."""
        self.wait(job, "PENDING")
        time.sleep(2)  # a node refuses a job that starts in the second in which it ended
        assert subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], env=self.env).returncode == 0

    def wait(self, job: str, state: str) -> None:
        """Wait until a job is RUNNING, PENDING, COMPLETED, …; an error if it ends otherwise."""
        self.wait_until(job, lambda: self.state(job) == state)

    def wait_until(self, job: str, done: Callable[[], bool]) -> None:
        """Wait until `done` is true; an error if the job ends before."""
        wait_until(lambda: self.state(job) in ENDED or done())
        assert done(), f"job {job} is {self.state(job)}:\n{self.output(job)}"


def wait_until(done: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Return when `done` is true.

    Raises:
        TimeoutError: after `patience` seconds.
    """
    until = time.monotonic() + patience
    while not done():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
