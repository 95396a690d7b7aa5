"""Parts of the work on one card: what the card can reach, the CLIP loss, views, and embedding."""

from __future__ import annotations

import time

import torch

from benchmarks import clip_memory, gpu_augment, ssl_step
from benchmarks.gpu.run import ENCODERS, Run
from morphoclip.batch import Batch
from morphoclip.data import ShardDataset
from morphoclip.models import Encoder
from morphoclip.profiling import embed


def ceilings(run: Run) -> None:
    """A large matrix product in bf16, on random numbers, and a copy within the device's memory."""
    side, repeats = (64, 1) if run.tiny else (8192, 10)
    with run.row(row="bf16 matrix product") as record:
        a, b = (torch.randn(side, side, device=run.device, dtype=torch.bfloat16) for _ in range(2))
        record(side=side, tflops_per_s=2 * side**3 / gpu_augment.seconds(lambda: a @ b, run.device, repeats) / 1e12)
    with run.row(row="copy") as record:
        source = torch.rand(side * side * 4, device=run.device)
        target = torch.empty_like(source)
        spent = gpu_augment.seconds(lambda: target.copy_(source), run.device, repeats)
        record(gib=source.nbytes / 2**30, tb_per_s=2 * source.nbytes / spent / 1e12)


def clip(run: Run) -> None:
    """65,536 pairs, forward and backward, a chunk of rows at a time and with all logits."""
    pairs, chunk = (256, 64) if run.tiny else (65_536, 2048)
    rows = [(loss, size) for loss in ("InfoNCELoss", "SigLIPLoss", "CWCLLoss") for size in (chunk, None)]
    for loss, size in run.timely(rows):
        with run.row(function=loss, pairs=pairs, chunk=size) as record:
            try:
                record(**clip_memory.measure(loss, pairs, 512, size, run.device))
            except torch.OutOfMemoryError:
                record(left_out="more memory than the card has")


def views(run: Run) -> None:
    """DINO's views beside a device copy of as many bytes; the bar is `gpu_augment.BAR`."""
    for batch in (2,) if run.tiny else (64, 192):
        with run.row(batch=batch) as record:
            for row in gpu_augment.measure(run.device, batch, 1 if run.tiny else 10, compiled=False):
                record(**row)


def embedding(run: Run) -> None:
    """Crops/s of `embed` from shards, and of the encoder's forward pass alone on crops that lie on the device.

    The first call of `embed` also pays for pinned memory (`first_per_s`); the second tells the rate of a long one.
    """
    for encoder, _, chosen in run.grid(("vit_small", "simclr"), ("vit_base", "simclr")):
        with run.row(encoder=ENCODERS[encoder]) as record:
            dataset = ShardDataset(run.shards(224))
            model = ssl_step.our_method("simclr", chosen).encoder.eval()
            batch = ssl_step.crops(4 if run.tiny else 256, 224, run.device)
            bare = len(batch) / forward_seconds(model, batch, 1 if run.tiny else 10)
            rates = []
            for _ in range(2):
                began = time.perf_counter()
                embed(model, dataset, device=run.device, batch_size=len(batch), num_workers=run.workers, progress=False)
                rates.append(len(dataset) / (time.perf_counter() - began))
            record(first_per_s=rates[0], embed_per_s=rates[1], forward_per_s=bare, share=rates[1] / bare)


@torch.inference_mode()
def forward_seconds(model: Encoder, batch: Batch, repeats: int) -> float:
    x = model.preprocess(batch.images, batch.low, batch.high)
    return gpu_augment.seconds(lambda: model(x), x.device.type, repeats)
