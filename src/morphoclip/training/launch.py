"""Processes started by a launcher (torchrun, srun, or none), and their process group."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

T = TypeVar("T")

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")


@dataclass(frozen=True)
class Launch:
    """Ranks set by the launcher; a single process without one."""

    rank: int
    world_size: int
    local_world_size: int

    @property
    def nodes(self) -> int:
        return self.world_size // self.local_world_size


def read_launch() -> Launch:
    """The launch from torchrun's variables, or else Slurm's (`srun`), or else a single process."""
    env = os.environ
    if "LOCAL_WORLD_SIZE" in env:
        return Launch(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env["LOCAL_WORLD_SIZE"]))
    # An interactive Slurm shell has these variables too, but starts only one process.
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        world = int(env["SLURM_STEP_NUM_TASKS"])
        return Launch(int(env["SLURM_PROCID"]), world, world // int(env["SLURM_STEP_NUM_NODES"]))
    return Launch(0, 1, 1)


@dataclass(frozen=True)
class Job:
    """The cluster job or launcher that started this process.

    Attributes:
        name: the same for all its restarts; None for a process started by hand.
        restarts: how often Slurm requeued the job, and torchrun restarted its processes.
    """

    name: str | None
    restarts: tuple[int, int] = (0, 0)

    @property
    def is_restart(self) -> bool:
        return any(self.restarts)


def read_job() -> Job:
    """The job by the variables of Slurm and torchrun."""
    env = os.environ
    restarts = tuple(int(env.get(key, 0)) for key in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    slurm = slurm_job()
    if slurm is not None:
        return Job(slurm, (restarts[0], restarts[1]))
    if "TORCHELASTIC_RUN_ID" in env:
        given = env["TORCHELASTIC_RUN_ID"]
        own = f"{os.uname().nodename}-{os.getppid()}"  # torchrun itself, which outlives the processes it restarts
        return Job(f"torchrun-{own if given == 'none' else given}", (0, restarts[1]))
    return Job(None)


def slurm_job() -> str | None:
    """slurm-<job> or slurm-<job>-<array task>; None outside of a Slurm job."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"slurm-{env['SLURM_ARRAY_JOB_ID']}-{env['SLURM_ARRAY_TASK_ID']}"
    return f"slurm-{env['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in env else None


def cluster_environment(launch: Launch) -> ClusterEnvironment:
    """Lightning's view of the launch, without its requeueing: `interrupts` decides what a signal does."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if launch.world_size > 1 else LightningEnvironment()


def trainer_devices(launch: Launch, requested: int | str) -> int:
    """Devices for the Trainer on this node: the number of processes the launcher started.

    Raises:
        ValueError: `requested` ("auto" or a number) differs from that number.
    """
    if requested != "auto" and int(requested) != launch.local_world_size:
        raise ValueError(
            f"trainer.devices={requested}, but {launch.local_world_size} process(es) were started on this node: "
            f"start with\n  torchrun --nproc-per-node {requested} train.py …"
        )
    return launch.local_world_size


def set_launch(trainer: Any, launch: Launch) -> None:
    """Set what a trainer's config leaves to the launch: devices, nodes and precision.

    Raises:
        ValueError: see `trainer_devices`, `trainer_nodes` and `trainer_precision`.
    """
    trainer.devices = trainer_devices(launch, trainer.devices)
    trainer.num_nodes = trainer_nodes(launch, trainer.num_nodes)
    trainer.precision = trainer_precision(trainer.precision, trainer.accelerator)


def trainer_nodes(launch: Launch, requested: int | str | None) -> int:
    """Nodes for the Trainer: as many as the launcher started processes on.

    Raises:
        ValueError: `requested` ("auto" or a number) differs from that number, or is None.
    """
    if requested is None:
        raise ValueError(
            f"trainer.num_nodes is not set: give the number of nodes ({launch.nodes} in this launch), or auto"
        )
    if requested != "auto" and int(requested) != launch.nodes:
        raise ValueError(
            f"trainer.num_nodes={requested}, but processes were started on {launch.nodes} node(s): on each node start "
            f"torchrun --nnodes {requested} --nproc-per-node {launch.local_world_size} --rdzv-backend c10d "
            "--rdzv-endpoint HOST:29500 train.py …, or use slurm/train.sbatch"
        )
    return launch.nodes


def check_accelerator(accelerator: str) -> None:
    """Raise ValueError for a GPU where torch sees none."""
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        built = "" if torch.version.cuda else ", and this torch is built without CUDA"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden!r})"
        raise ValueError(
            f"trainer.accelerator={accelerator}, but torch finds no GPU{seen}{built}: check nvidia-smi, or use trainer=cpu"
        )


def trainer_precision(requested: str | None, accelerator: str) -> str:
    """`requested`; if None, bf16-mixed on a GPU that supports it, else 32-true.

    Raises:
        ValueError: see `check_precision`.
    """
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    chosen = str(requested or ("bf16-mixed" if gpu else "32-true"))
    check_precision(chosen)
    return chosen


def check_precision(precision: str, offered: Sequence[str] = PRECISIONS) -> None:
    """Raise ValueError for a precision that is not offered."""
    if precision not in offered:
        raise ValueError(f"trainer.precision={precision}: use one of {', '.join(offered)}")


def join(launch: Launch, timeout: timedelta | None = None) -> None:
    """Join the process group before Lightning does, so that ranks can agree on the run folder. Idempotent.

    Args:
        timeout: longest wait of a rank for the others in a collective; None for torch's.
    """
    if launch.world_size == 1 or dist.is_initialized():
        return
    if "MASTER_ADDR" not in os.environ:
        raise ValueError("srun started several tasks but MASTER_ADDR is not set: use slurm/train.sbatch, which sets it")
    os.environ.setdefault("MASTER_PORT", "29500")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        # Before the first collective; otherwise all ranks of a node would use its first GPU.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))))
    store, _, _ = next(dist.rendezvous("env://", launch.rank, launch.world_size))
    # torchrun may keep its store over a restart, with the addresses of the processes that have ended.
    store = dist.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.world_size, timeout=timeout)


def on_rank_zero(work: Callable[[], T]) -> T:
    """Do `work` on rank 0 and return its result on every rank; an error is raised on every rank too."""
    if not dist.is_initialized():
        return work()
    box: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            box[0] = work()
        except Exception as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]
