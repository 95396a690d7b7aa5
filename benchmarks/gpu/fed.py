"""The real trainer on Blosc shards that our loader reads: crops/s beside those of the loader alone and of the step alone.

`data_wait` is the share of time inside `next()` of the loader; a GPU may still be at work on the step before. What
feeding costs is in `share`: the trainer's crops/s as a share of those of steps in a row on a batch that lies on the device.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import pytorch_lightning as pl

from benchmarks import ssl_step
from benchmarks.gpu.run import ENCODERS, Run
from benchmarks.gpu.steps import prepared
from morphoclip.data import CellDataModule, ShardDataset
from morphoclip.training.callbacks import Speed

CROP_SIZE = {"dino": 448}  # its views are cut from a larger crop


def fed(run: Run) -> None:
    rows = [("vit_small", "simclr"), ("vit_small", "mae"), ("vit_base", "dino"), ("vit_base", "simclr")]
    rows += [("vit_base", "mae"), ("vit_small", "dino"), ("vit_small", "cwa_msn")]
    for encoder, method, chosen in run.grid(*rows):
        with run.row(encoder=ENCODERS[encoder], method=method, threads=run.workers) as record:
            found = run.halving(lambda chosen, method=method: train(run, method, chosen), chosen)
            run.free()
            alone = chosen.batch / step_seconds(method, chosen)
            record(**found, step_per_s=alone, share=found["samples_per_s"] / alone)


def train(run: Run, method: str, chosen: argparse.Namespace) -> dict[str, float]:
    """Speed of the second half of a short training, whose first half warms up; `read_per_s` is that of the loader alone.

    The loader reads nothing ahead over the end of an epoch, so crops repeat within one.
    """
    steps = 4 if run.tiny else 24
    root = run.shards(CROP_SIZE.get(method, 224))
    repeats = 1 + steps * chosen.batch // len(ShardDataset(root))
    data = CellDataModule(
        [{"root": root}] * repeats,
        global_batch_size=chosen.batch,
        sampler="pairs" if method == "cwa_msn" else "uniform",
        num_workers=run.workers,
    )
    trainer = pl.Trainer(
        accelerator="cpu" if run.device == "cpu" else "gpu",
        devices=1,
        precision="bf16-mixed",
        max_steps=steps,
        callbacks=[Speed(every_n_steps=steps // 2)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    trainer.fit(ssl_step.recipe_method(method, chosen), datamodule=data)
    found = {name: float(trainer.callback_metrics[f"speed/{name}"]) for name in ("samples_per_s", "data_wait")}
    return {"steps": steps, **found, "read_per_s": reading_rate(data, steps)}


def step_seconds(method: str, chosen: argparse.Namespace) -> float:
    """Seconds of a step on a batch that lies on the device, of steps in a row."""
    step, batch = prepared(method, chosen, None)
    for _ in range(chosen.warmup):
        step(batch)
    return ssl_step.seconds_in_a_row(step, batch, chosen)


def reading_rate(data: CellDataModule, steps: int) -> float:
    """Crops/s of the loader with nothing else to do, from its second batch on."""
    batches = iter(data.train_dataloader())
    next(batches)
    began = time.perf_counter()
    read = sum(batch.tensor("images").shape[:-3].numel() for batch in islice(batches, steps - 1))
    return read / (time.perf_counter() - began)
