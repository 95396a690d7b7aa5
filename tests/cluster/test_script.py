"""slurm/train.sbatch in a real Slurm, with a command in the place of the training that records what reaches it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import wait_until

SCRIPT = Path(__file__).parents[2] / "slurm/train.sbatch"
TWO_RANKS = ["--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1"]
# Prints its arguments and environment, then waits for a signal and ends as a training does: 128 + signal.
RANK = """
import os, signal, sys, time
got = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: got.append(number))
env = os.environ
names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "MASTER_ADDR", "MASTER_PORT", "SLURM_CPUS_PER_TASK")
world = int(env["SLURM_STEP_NUM_TASKS"])
print("rank", *(env[name] for name in names), sys.argv[1:], "restart", env.get("SLURM_RESTART_COUNT", 0), flush=True)
if "status=" in sys.argv[-1] and int(env["SLURM_PROCID"]) == world - 1:
    sys.exit(int(sys.argv[-1].removeprefix("status=")))
while not got and env.get("SLURM_RESTART_COUNT", "0") == "0":
    time.sleep(0.05)
time.sleep(2 * (env["SLURM_PROCID"] == "0"))  # rank 0 has a checkpoint to write
print(f"rank {env['SLURM_PROCID']} ends after {[signal.Signals(number).name for number in got]}", flush=True)
sys.exit(128 + got[0] if got else 0)
"""


@pytest.fixture
def submit(slurm, tmp_path):
    """Submit the script with arguments of sbatch and of the training; returns the job's id."""
    (tmp_path / "rank.py").write_text(RANK)
    command = {"MORPHOCLIP": f"{sys.executable} {tmp_path / 'rank.py'}"}

    def start(*arguments: str, training: tuple[str, ...] = ("experiment=demo",)) -> str:
        return slurm.submit(*TWO_RANKS, *arguments, SCRIPT, *training, folder=tmp_path, env=command)

    return start


def test_ranks_of_two_nodes_get_the_arguments_and_one_address(slurm, submit):
    job = submit("--nodes=2", "--cpus-per-task=3", training=("experiment=demo", "name=two words"))
    wait_until(lambda: slurm.output(job).count("rank") == 4)
    slurm.ask("scancel", job)
    lines = sorted(line for line in slurm.output(job).splitlines() if line.startswith("rank"))
    port = 20000 + int(job) % 20000
    arguments = "['train', 'experiment=demo', 'name=two words']"
    assert lines[:4] == [
        f"rank {rank} 4 {slurm.field(job, 'BatchHost')} {port} 3 {arguments} restart 0" for rank in range(4)
    ]


def test_near_the_time_limit_every_rank_is_signalled_once_and_the_job_is_requeued(slurm, submit):
    job = submit()
    wait_until(lambda: slurm.output(job).count("restart 0") == 2)
    slurm.ask("scancel", "--signal=USR1", "--batch", job)  # what --signal=B:USR1@120 does
    slurm.release(job)
    slurm.wait(job, "COMPLETED")
    assert "rank 1 ends after ['SIGUSR1']" in slurm.output(job)
    assert "rank 0 ends after ['SIGUSR1'" in slurm.output(job)  # and SIGTERM, as a rank has ended before it
    assert slurm.output(job).count("restart 1") == 2  # behind the first start's output, not in its place
    assert slurm.field(job, "Restarts") == "1"


@pytest.fixture(params=[60, 0], ids=["with time to save", "at once"])
def grace(slurm, request):
    """Seconds between the preemption of a job and its end, set for the partition."""
    slurm.ask("scontrol", "update", "PartitionName=main", f"GraceTime={request.param}")
    yield request.param
    slurm.ask("scontrol", "update", "PartitionName=main", "GraceTime=60")


@pytest.mark.usefixtures("grace")
def test_a_preempted_job_is_requeued(slurm, submit):
    job = submit("--nodes=2", "--exclusive")
    wait_until(lambda: slurm.output(job).count("restart 0") == 4)
    urgent = slurm.submit("--partition=urgent", "--exclusive", "--nodes=2", "--wrap=true", folder=slurm.folder)
    slurm.wait(urgent, "COMPLETED")
    slurm.release(job)
    slurm.wait(job, "COMPLETED")
    assert [f"rank {rank} ends after ['SIGTERM" in slurm.output(job) for rank in range(4)] == [True] * 4
    assert slurm.field(job, "Restarts") == "1"


def test_a_cancelled_job_is_not_requeued(slurm, submit):
    job = submit()
    wait_until(lambda: slurm.output(job).count("restart 0") == 2)
    slurm.ask("scancel", job)
    wait_until(lambda: "rank 0 ends after ['SIGTERM" in slurm.output(job))
    slurm.wait(job, "CANCELLED")
    assert slurm.field(job, "Restarts") == "0"


def test_a_failed_rank_ends_the_job_for_good(slurm, submit):
    job = submit(training=("status=3",))
    slurm.wait(job, "FAILED")
    assert "rank 0 ends after ['SIGTERM']" in slurm.output(job)  # it would have waited for the other for ever
    assert slurm.field(job, "ExitCode") == "143:0"  # the largest of the ranks'
    assert slurm.field(job, "Restarts") == "0"


def test_a_failed_start_passes_its_status_on(slurm, submit):
    job = submit("--ntasks-per-node=1", training=("status=3",))
    slurm.wait(job, "FAILED")
    assert slurm.field(job, "ExitCode") == "3:0"


def test_a_requeued_task_of_an_array_leaves_the_others_alone(slurm, submit, tmp_path):
    (tmp_path / "runs.txt").write_text("seed=1\nseed=2 'name=two words'\n")
    job = submit("--array=1-2", training=("runs.txt", "trainer=ddp"))
    wait_until(lambda: all(slurm.output(job, task).count("restart 0") == 2 for task in (1, 2)))
    slurm.ask("scancel", "--signal=USR1", "--batch", f"{job}_2")
    slurm.release(f"{job}_2")
    slurm.wait(f"{job}_2", "COMPLETED")
    assert slurm.output(job, 2).count("['train', 'seed=2', 'name=two words', 'trainer=ddp'] restart 1") == 2
    assert slurm.output(job, 1).count("['train', 'seed=1', 'trainer=ddp'] restart 0") == 2
    assert slurm.state(f"{job}_1") == "RUNNING"
    assert slurm.field(f"{job}_1", "Restarts") == "0"
    slurm.ask("scancel", job)
