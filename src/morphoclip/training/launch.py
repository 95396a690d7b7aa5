"""Processes started by a launcher (torchrun, srun, or none), and their process group."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


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


def trainer_precision(requested: str | None, accelerator: str) -> str:
    """`requested`; if None, bf16-mixed on a GPU that supports it, else 32-true."""
    gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return requested or ("bf16-mixed" if gpu else "32-true")


def join(launch: Launch) -> None:
    """Join the process group before Lightning does, so that ranks can agree on the run folder. Idempotent."""
    if launch.world_size == 1 or dist.is_initialized():
        return
    if "MASTER_ADDR" not in os.environ:
        raise RuntimeError(
            "srun started several tasks but MASTER_ADDR is not set: use slurm/train.sbatch, which sets it"
        )
    os.environ.setdefault("MASTER_PORT", "29500")
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        # Before the first collective; otherwise all ranks of a node would use its first GPU.
        torch.cuda.set_device(launch.rank % launch.local_world_size)
    dist.init_process_group(backend, rank=launch.rank, world_size=launch.world_size)


def barrier() -> None:
    """Wait until every rank has called this; no effect on a single process."""
    if dist.is_initialized():
        dist.barrier()


def from_rank_zero(value: str) -> str:
    """Return rank 0's `value` on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
