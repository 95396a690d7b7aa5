"""2N steps beside N + resume + N, on one process or as one of several ranks.

Data come from a folder through the data module and the run stops in the middle of an epoch, so that the sampler's place
is part of it; encoders drop paths, so that the random state of each rank is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from morphoclip import schema
from morphoclip.data import CellDataModule
from morphoclip.methods.base import build
from tests.datasets import screen_rows, write_screen
from tests.methods.tiny import ENCODER, LINEAR_VIT, METHODS, TWO_SIZES, exact, trainer, view

# What all ranks take together in a step, such that an epoch has three.
SAMPLING: dict[str, tuple[int, dict[str, Any]]] = {
    "clip": (6, {"sampler": "bags", "sampler_options": {"bag_size": 4, "steps_per_epoch": 3}}),
    "cwa_msn": (16, {"sampler": "pairs", "sampler_options": {"steps_per_epoch": 3}}),
}
DROPS = {"drop_path_rate": 0.3, "depth": 2}


def small_screen(folder: Path) -> Path:
    """A dataset of 72 crops of 16 pixels: nine wells on each of two plates."""
    rows = [row for row in screen_rows() if row[schema.PLATE] in ("b1p1", "b2p1")]
    chosen = [row for number, row in enumerate(rows) if number % (len(rows) // 2) < 9]
    return write_screen(folder, chosen, size=16)


def trained(name: str, screen: Path, world: int = 1, steps: int = 10, double: bool = True) -> list[torch.Tensor]:
    """Parameters, buffers and each step's logged loss of a training, from a folder through the data module."""
    batch, options = SAMPLING.get(name, (24, {}))
    ranks = {} if world == 1 else {"devices": world, "strategy": "ddp"}
    data = CellDataModule([{"root": screen}], global_batch_size=batch, **options)
    sized = {"prompts": [f"condition {row}" for row in range(len(data.table.frame))]} if name == "clip" else {}
    method = METHODS[name](encoder=LINEAR_VIT if name == "mae" else ENCODER, **sized)
    method = exact(method) if double else method
    if name in ("dino", "cwa_msn"):  # views of the encoder's size: timm interpolates positions in float32
        method.global_view = method.local_view = build(view(16))
    logged = Logged()
    trainer(steps, callbacks=[logged], gradient_clip_val=1.0, **ranks).fit(method, datamodule=data)
    return [
        *(value for value in method.state_dict().values() if isinstance(value, torch.Tensor)),
        torch.tensor(logged.losses),
    ]


class Logged(pl.Callback):
    """Keeps the loss that a method logs at each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def differences(name: str, screen: Path, folder: Path, world: int = 1) -> list[str]:
    """Parameters and buffers of a method that are not bit for bit the same; checkpoints go to `folder`."""
    batch, options = SAMPLING.get(name, (24, {}))
    ranks = {} if world == 1 else {"devices": world, "strategy": "ddp"}

    def fit(steps: str, **kw: Any) -> pl.LightningModule:
        data = CellDataModule([{"root": screen}], batch // world, **options)
        sized = {"prompts": [f"condition {row}" for row in range(len(data.table.frame))]} if name == "clip" else {}
        encoder = {"dino": TWO_SIZES, "cwa_msn": TWO_SIZES, "mae": LINEAR_VIT}.get(name, ENCODER) | DROPS
        method = METHODS[name](encoder=encoder, **sized)
        saving = pl.callbacks.ModelCheckpoint(folder / steps, filename="{step}", every_n_train_steps=2, save_top_k=-1)
        torch.manual_seed(len(steps))  # nothing may depend on the global generator
        run = trainer(4, callbacks=[saving], enable_checkpointing=True, gradient_clip_val=1.0, **ranks)
        run.fit(method, datamodule=data, **kw)
        return method

    whole = fit("2N")
    resumed = fit("N and N", ckpt_path=folder / "2N" / "step=2.ckpt", weights_only=True)
    expected, found = whole.state_dict(), resumed.state_dict()
    return [key for key, value in expected.items() if isinstance(value, torch.Tensor) and not value.equal(found[key])]
