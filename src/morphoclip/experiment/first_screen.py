"""What a training prints before its first step, in eight lines, and in its last line."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from morphoclip.distributed import world_size
from morphoclip.training.checkpointing import Checkpoints
from morphoclip.training.curves import CSVCurves, read_rows
from morphoclip.training.launch import read_launch
from morphoclip.training.optimizers import AdamW
from morphoclip.training.watched import datamodule_of

GIB = 2**30
UNITS = {"bags": "bags", "active_bags": "bags", "pairs": "pairs"}
VALIDATION, RECALL = "val/", "val/recall_at_"


class FirstScreen(pl.Callback):
    """Prints the screen on rank 0 before the first step.

    Args:
        config: config of the run, with its folder.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            print("\n".join(first_screen(trainer, pl_module, self.config)), flush=True)


def first_screen(
    trainer: pl.Trainer, method: pl.LightningModule, config: DictConfig, planned: pl.Trainer | None = None
) -> list[str]:
    """The eight lines of a training that is about to start: device, batch, data, length, rate, checkpoints, loggers, run.

    Args:
        planned: the trainer whose checkpoints and loggers are described; None for `trainer`.
    """
    loader = datamodule_of(trainer)
    lines = {
        "device": device_line(trainer),
        "batch": batch_line(config.data.loader, loader.batch_size, trainer.accumulate_grad_batches),
        "data": data_line(loader.mixture, config.data.loader.split),
        "length": length_line(trainer),
        "rate": rate_line(method, int(trainer.estimated_stepping_batches)),
        "checkpoint": checkpoint_line(planned or trainer, method),
        "loggers": logger_line(planned or trainer, Path(config.folder)),
        "run": f"goes on from step {trainer.global_step:,}" if trainer.global_step else "new, from step 0",
    }
    return [f"{name:<11} {text}" for name, text in lines.items()]


def device_line(trainer: pl.Trainer) -> str:
    """The devices of all ranks, their precision, and the command that uses a GPU which is idle."""
    device, ranks, nodes = trainer.strategy.root_device, read_launch().local_world_size, read_launch().nodes
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        name = f"{found.name} ({found.total_memory / GIB:.0f} GiB)"
        used = ranks
    else:
        threads = torch.get_num_threads()
        name, used = f"CPU ({plural(threads, 'thread')} a rank)", 0
    where = f" on each of {nodes} nodes" if nodes > 1 else ""
    text = f"{ranks} x {name}{where}, {trainer.precision}"
    there = torch.cuda.device_count()
    if there > used:
        start = f"torchrun --nproc-per-node {there} train.py trainer=ddp …" if there > 1 else "trainer=gpu"
        text += f"; {used} of {there} GPUs {'is' if used == 1 else 'are'} used; start with {start}"
    return text


def batch_line(loader: Mapping[str, Any], batch_size: int, accumulated: int) -> str:
    """Ranks x batch x accumulated batches = items a step."""
    unit = UNITS.get(str(loader.get("sampler")), "crops")
    size = (loader.get("sampler_options") or {}).get("bag_size") if unit == "bags" else None
    unit = f"{unit} of {size}" if size else unit
    total = world_size() * batch_size * accumulated
    return f"{plural(world_size(), 'rank')} x {batch_size} {unit} x {accumulated} accumulated = {total:,} a step"


def data_line(mixture: Any, split: str | None) -> str:
    """Crops (wells of a profile table), perturbations and plates of the split; negative controls are no perturbation."""
    codes, present = mixture.codes, mixture.present
    treated = mixture.named[present] & ~codes.is_control[present]
    perturbations = len(np.unique(codes.perturbation[present][treated]))
    plates = len(np.unique(codes.plate[present]))
    if split is None:
        name = "all data"
    else:
        name = "what the holdout leaves" if Path(split).suffix == ".npy" else f"split {split}"
    counted = [
        plural(len(mixture), mixture.datasets[0].unit),
        plural(perturbations, "perturbation"),
        plural(plates, "plate"),
    ]
    return f"{', '.join(counted)}: {name}"


def length_line(trainer: pl.Trainer) -> str:
    """Optimizer steps and epochs of the whole run."""
    steps = int(trainer.estimated_stepping_batches)
    if not math.isfinite(trainer.num_training_batches):
        return f"{plural(steps, 'step')}; the length of an epoch is not known"
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    epochs = steps / per_epoch
    number = f"{epochs:,.0f}" if epochs == int(epochs) else f"{epochs:,.2f}"
    return f"{plural(steps, 'step')} = {number} epoch{'' if epochs == 1 else 's'} of {plural(per_epoch, 'step')}"


def rate_line(method: Any, total: int) -> str:
    """The highest learning rate and the step at which it is reached."""
    recipe = method.recipe
    if not isinstance(recipe, AdamW):
        return f"decided by {type(recipe).__name__}"
    warmup = peak_step(recipe, total)
    return f"at most {recipe.rate(warmup, total):.4g}, after {plural(warmup, 'warm-up step')}"


def peak_step(recipe: AdamW, total: int, grid: int = 2000) -> int:
    """The first step with the highest rate, searched on a grid of steps and then between its points."""
    stride = max(1, total // grid)
    best = max(range(0, total, stride), key=lambda step: recipe.rate(step, total))  # the first of equal ones
    around = range(max(0, best - stride + 1), min(total, best + stride))
    return max(around, key=lambda step: recipe.rate(step, total))


def checkpoint_line(trainer: pl.Trainer, method: pl.LightningModule) -> str:
    """Size of a checkpoint, when one is saved and which are kept."""
    saver = saver_of(trainer)
    if saver is None:
        return "none are saved"
    when = [] if math.isinf(saver.seconds) else [f"every {saver.seconds / 60:g} min"]
    when += [f"every {plural(saver.every_n_train_steps, 'step')}"] if saver.every_n_train_steps else []
    when += ["at each epoch's end"] if saver.every_epoch else []
    kept = ["the last two"] + ([f"the best by {saver.monitor}"] if saver.monitor else [])
    kept += [f"every {saver.keep_every_n_epochs} epochs'"] if saver.keep_every_n_epochs else []
    size, _ = checkpoint_bytes(method)
    return f"{in_bytes(size)}, {', '.join([*when, 'at the end'])}; kept: {', '.join(kept)}"


def saver_of(trainer: pl.Trainer) -> Checkpoints | None:
    """The callback that saves checkpoints."""
    return next((made for made in trainer.checkpoint_callbacks if isinstance(made, Checkpoints)), None)


def checkpoint_bytes(method: Any) -> tuple[int, int]:
    """(bytes of a checkpoint, bytes of the weights that all checkpoints share): weights and AdamW's two averages."""
    frozen = set(method.frozen_weights())
    sizes = {
        name: value.numel() * value.element_size()
        for name, value in method.state_dict().items()
        if isinstance(value, Tensor)
    }
    trained = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
    shared = sum(size for name, size in sizes.items() if name in frozen)
    return sum(sizes.values()) - shared + 2 * trained, shared


def logger_line(trainer: pl.Trainer, folder: Path) -> str:
    """The loggers, and how often they get a row."""
    names = [
        str(made.path.relative_to(folder))
        if isinstance(made, CSVCurves)
        else type(made).__name__.removesuffix("Logger")
        for made in trainer.loggers
    ]
    if not names:
        return "none"
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning, not declared
    return f"{', '.join(names)}; a row every {plural(every, 'step')}"


def last_line(folder: Path, seconds: float) -> str:
    """The line at the end of a run: loss, what was validated beside its chance, time, and where the curves lie.

    Args:
        folder: of the run.
        seconds: duration of this start.
    """
    path = folder / "logs" / "metrics.csv"
    latest: dict[str, float] = {}
    for row in read_rows(path) if path.is_file() else []:
        latest |= {name: float(value) for name, value in row.items() if value}
    shown = [f"loss {latest['train/loss']:.4g}"] if "train/loss" in latest else []
    ks = {name.removeprefix(RECALL).partition("_")[0] for name in latest if name.startswith(RECALL)}
    widest = max(ks, key=int, default="")  # of recall at 1, 5 and 10 the last
    for name, value in latest.items():
        if name.startswith(RECALL) and not name.startswith(f"{RECALL}{widest}_"):
            continue
        if name.startswith(VALIDATION) and f"{name}_chance" in latest:
            shown.append(f"{name} {value:.3f} (chance {latest[f'{name}_chance']:.3f})")
        elif name == "val/loss":
            shown.append(f"val/loss {value:.4g}")
    curves = f"curves in {os.path.relpath(path)}" if latest else f"results in {os.path.relpath(folder)}"
    return f"done        {', '.join([*shown, in_time(seconds)])}; {curves}"


def plural(count: int, unit: str) -> str:
    """Count and unit: "1 step", "2,000 steps"."""
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def in_bytes(size: float) -> str:
    """Bytes as people read them, in powers of 1,000: "3.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def in_time(seconds: float) -> str:
    """A duration as people read it: "4.2 s", "12 min 3 s", "3 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"
