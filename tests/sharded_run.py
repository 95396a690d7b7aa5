"""What a spawned rank of tests/test_sharding.py runs, and the same on one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from morphoclip.data import CellDataModule
from morphoclip.methods.base import build
from morphoclip.training.checkpointing import WholeCheckpoints
from morphoclip.training.sharding import ShardedStrategy
from tests.methods.resume import SAMPLING, Logged
from tests.methods.tiny import ENCODER, LINEAR_VIT, METHODS, exact, trainer, view

NAMES = [name for name in METHODS if name != "clip"]
STEPS, HALF = 10, 5


class Halfway(pl.Callback):
    """Saves a checkpoint in the middle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == HALF:
            trainer.save_checkpoint(self.path, weights_only=False)


def method_of(name: str) -> pl.LightningModule:
    method = exact(METHODS[name](encoder=LINEAR_VIT if name == "mae" else ENCODER))
    if name in ("dino", "cwa_msn"):  # views of the encoder's size: timm interpolates positions in float32
        method.global_view = method.local_view = build(view(16))
    return method


def train(name: str, folder: Path, world: int, checkpoint: Path | None = None) -> list[float]:
    """Train, write `folder`/<name>-<world>-{half,end}.ckpt (…-resumed-end.ckpt from a checkpoint), return the losses."""
    batch, options = SAMPLING.get(name, (24, {}))
    data = CellDataModule([{"root": folder / "screen"}], global_batch_size=batch, **options)
    method, logged = method_of(name), Logged()
    kind = f"{name}-{world}" + ("-resumed" if checkpoint else "")
    ranks = {} if world == 1 else {"devices": world, "strategy": ShardedStrategy()}
    halfway = Halfway(folder / f"{kind}-half.ckpt")
    run = trainer(STEPS, callbacks=[logged, halfway], plugins=[WholeCheckpoints()], gradient_clip_val=1.0, **ranks)
    run.fit(method, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    run.save_checkpoint(folder / f"{kind}-end.ckpt", weights_only=False)
    return logged.losses


def run_rank(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    # As a launcher would say it, so that Lightning starts no processes of its own.
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(world), "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    losses = {name: train(name, Path(folder), world) for name in NAMES}
    for name in NAMES:
        train(name, Path(folder), world, Path(folder) / f"{name}-1-half.ckpt")  # of one process
    torch.save(losses, Path(folder) / f"losses{rank}.pt")
    dist.destroy_process_group()
