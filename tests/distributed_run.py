"""What a spawned rank of tests/test_distributed.py runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from tests import distributed_losses, distributed_trainings  # noqa: F401  # they register their cases
from tests.distributed_cases import CASES


def run_rank(rank: int, world: int, folder: str) -> None:
    """Entry of a spawned process: all cases and resumes on `folder`/screen, results to `folder`/rank<k>.pt."""
    from tests.methods.resume import METHODS, differences, trained

    torch.set_num_threads(1)
    # As a launcher would say it, so that Lightning starts no processes of its own.
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {name: [t.detach() for t in function(rank, world)] for name, function in CASES.items()}
    changed = {name: differences(name, Path(folder) / "screen", Path(folder) / name, world) for name in METHODS}
    through_data = {name: trained(name, Path(folder) / "screen", world) for name in METHODS}
    first = {name: trained(name, Path(folder) / "screen", world, steps=1, double=False)[-1] for name in METHODS}
    found = {"cases": results, "changed by resuming": changed, "through data": through_data, "first loss": first}
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()
