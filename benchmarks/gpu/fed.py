"""The real trainer on Blosc shards that our loader reads: crops/s, and the share of time in which a step waits for its batch."""

from __future__ import annotations

import argparse

import pytorch_lightning as pl

from benchmarks import ssl_step
from benchmarks.gpu.run import ENCODERS, Run
from morphoclip.data import CellDataModule
from morphoclip.training.callbacks import Speed

CROP_SIZE = {"dino": 448}  # its views are cut from a larger crop


def fed(run: Run) -> None:
    rows = [("vit_small", "simclr"), ("vit_small", "mae"), ("vit_base", "dino"), ("vit_base", "simclr")]
    rows += [("vit_base", "mae"), ("vit_small", "dino"), ("vit_small", "cwa_msn")]
    for encoder, method, chosen in run.grid(*rows):
        with run.row(encoder=ENCODERS[encoder], method=method, threads=run.workers) as record:
            record(**run.halving(lambda chosen, method=method: train(run, method, chosen), chosen))


def train(run: Run, method: str, chosen: argparse.Namespace) -> dict[str, float]:
    """Speed of the second half of a short training within one epoch; the first half warms up."""
    steps = 4 if run.tiny else 24
    root = run.shards(CROP_SIZE.get(method, 224))
    # An epoch would end every few steps if crops did not repeat, and no batch is read ahead over its end.
    repeats = 1 + steps * chosen.batch // (16 if run.tiny else 1024)
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
    return {"steps": steps, **found}
