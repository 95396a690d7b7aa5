"""What one card does in at most eight minutes: `python -m benchmarks.on_gpu --out FOLDER [--sections …] [--tiny]`.

Sections, in the order of their worth, each written to FOLDER/on_gpu.json as soon as it is done, and left out if too little of
`--minutes` is left:

- steps: images/s and model FLOP utilisation of whole training steps (ViT-S/16, ViT-B/16; bf16 autocast, eager), beside
  lightly's modules doing the same work (`benchmarks.ssl_step`);
- fed: images/s and `data_wait` of the trainer on Blosc shards that our loader reads;
- clip: 65,536 pairs of the CLIP loss, chunked beside plain (`benchmarks.clip_memory`);
- views: making DINO's views beside a device copy (`benchmarks.gpu_augment`);
- embedding: `profiling.embed` from shards beside the bare forward pass;
- compiled: the steps of SimCLR and MAE again, with compiled backbones;
- tests: `pytest -m gpu`.

FLOPs are those of the matrix products and convolutions of a real step, forward and backward, teachers included; utilisation
is of the card's bf16 peak without sparsity by NVIDIA's data sheet. `--tiny` runs every line on a CPU, for a test.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from benchmarks import clip_memory, gpu_augment, ssl_step
from benchmarks.demo import machine
from benchmarks.noise_shards import write_shards
from morphoclip.data import CellDataModule, ShardDataset
from morphoclip.files import write_atomically
from morphoclip.profiling import embed
from morphoclip.training.callbacks import Speed

PATCHES = {"vit_small": "ViT-S/16", "vit_base": "ViT-B/16"}
# Crops of 224 pixels a step; DINO's of ViT-B and MAE's are Kim et al.'s batch, the others fill the card.
BATCHES = {
    "simclr": {"vit_small": 512, "vit_base": 256},
    "mae": {"vit_small": 1536, "vit_base": 1536},
    "dino": {"vit_small": 128, "vit_base": 192},
    "cwa_msn": {"vit_small": 256, "vit_base": 128},
}


def settings(given: argparse.Namespace, encoder: str, method: str) -> argparse.Namespace:
    """What `ssl_step` takes."""
    return argparse.Namespace(
        encoder="vit_tiny" if given.tiny else encoder,
        batch=2 if given.tiny else BATCHES[method][encoder],
        local_views=1 if given.tiny else 8,
        repeats=1 if given.tiny else 5,
        warmup=1 if given.tiny else 2,
        device=given.device,
        bf16=True,
        peak_tflops=None,
        fed_steps=0,
    )


def grid(given: argparse.Namespace) -> list[tuple[str, str]]:
    methods = ["simclr", "mae"] if given.tiny else list(BATCHES)
    return [(encoder, method) for encoder in (["vit_small"] if given.tiny else PATCHES) for method in methods]


def steps(given: argparse.Namespace) -> list[dict]:
    rows = []
    for encoder, method in grid(given):
        chosen = settings(given, encoder, method)
        while True:
            try:
                row = ssl_step.measure(method, chosen)
                break
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                chosen.batch //= 2
        rows.append({"encoder": PATCHES[encoder], "batch": chosen.batch, **row})
        report(rows[-1])
        free(given)
    return rows


def compiled(given: argparse.Namespace) -> list[dict]:
    """The whole step with compiled backbones, eager beside it."""
    rows = []
    for encoder, method in [("vit_base", "simclr"), ("vit_base", "mae"), ("vit_small", "simclr")]:
        chosen = settings(given, encoder, method)
        chosen.batch = max(1, chosen.batch // 2)
        row = {"encoder": PATCHES[encoder], "method": method, "batch": chosen.batch}
        batch = ssl_step.crops(chosen.batch, 224, given.device)
        for kind in ("eager", "compiled"):
            torch.compiler.reset()
            ours = ssl_step.our_method(method, chosen)
            if kind == "compiled":
                ours.encoder.backbone.compile(mode=None)
            step = ssl_step.at_precision(ssl_step.our_step(ours), chosen)
            began = time.perf_counter()
            for _ in range(1 + chosen.warmup):
                step(batch)
            row[f"{kind}_warmup_s"] = time.perf_counter() - began
            spent = [ssl_step.seconds(step, batch, given.device) for _ in range(chosen.repeats)]
            row[f"{kind}_crops_per_s"] = chosen.batch / float(np.median(spent))
            free(given)
        rows.append(row)
        report(row)
        if given.tiny:
            break
    return rows


def fed(given: argparse.Namespace) -> list[dict]:
    """Short trainings from shards: crops/s and the share of time in which the step waits, in the second half of an epoch.

    `read_per_s` is the rate of the loader alone.
    """
    rows = []
    workers = min(16, os.cpu_count() or 1)
    crops = {224: 16, 448: 16} if given.tiny else {224: 8192, 448: 2048}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 0}
    quiet |= {"enable_model_summary": False, "use_distributed_sampler": False, "devices": 1}
    with tempfile.TemporaryDirectory() as folder:
        for size, count in crops.items():
            write_shards(Path(folder) / str(size), size, count)
        for encoder, method in [grid(given)[0]] if given.tiny else [g for g in grid(given) if g[1] != "cwa_msn"]:
            chosen = settings(given, encoder, method)
            chosen.batch, chosen.device = min(chosen.batch, 512), "cpu"  # the trainer moves it
            ours = ssl_step.our_method(method, chosen)
            del ours.log, ours.log_dict, ours.__dict__["total_steps"]
            root = Path(folder) / ("448" if method == "dino" else "224")
            data = CellDataModule(
                [{"root": root}], global_batch_size=chosen.batch, sampler="uniform", num_workers=workers
            )
            began = time.perf_counter()
            read = sum(len(batch) for batch in data.train_dataloader()) / (time.perf_counter() - began)
            steps = len(data.train_dataloader())
            trainer = pl.Trainer(
                accelerator="cpu" if given.device == "cpu" else "gpu",
                precision="bf16-mixed",
                max_steps=2 if given.tiny else 3 * steps,
                callbacks=[Speed(every_n_steps=max(1, steps // 2) if not given.tiny else 1)],
                **quiet,
            )
            trainer.fit(ours, datamodule=data)
            row = {
                "encoder": PATCHES[encoder],
                "method": method,
                "batch": chosen.batch,
                "threads": workers,
                "read_per_s": read,
            }
            speed = {
                name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("speed/")
            }
            rows.append(row | {name.partition("/")[2]: value for name, value in speed.items()})
            report(rows[-1])
            free(given)
    return rows


def clip(given: argparse.Namespace) -> list[dict]:
    rows = []
    pairs = 256 if given.tiny else 65_536
    for loss in ("InfoNCELoss", "SigLIPLoss", "CWCLLoss"):
        for chunk in (64 if given.tiny else 2048, None):
            free(given)
            if given.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                found = clip_memory.measure(loss, pairs, 512, chunk, given.device)
            except torch.OutOfMemoryError:
                found = {"mib": None, "seconds": None}
            rows.append({"function": loss, "pairs": pairs, "chunk": chunk, **found})
            report(rows[-1])
    return rows


def views(given: argparse.Namespace) -> list[dict]:
    rows = gpu_augment.measure(given.device, 2 if given.tiny else 64, 1 if given.tiny else 10, given.device == "cuda")
    for row in rows:
        report(row)
    return rows


def embedding(given: argparse.Namespace) -> list[dict]:
    """Crops/s of `embed` from shards, and of the encoder's forward pass alone on crops that lie on the device."""
    size, count = 224, 32 if given.tiny else 8192
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards", size, count)
        for name in ["vit_small"] if given.tiny else PATCHES:
            chosen = settings(given, name, "simclr")
            encoder = ssl_step.our_method("simclr", chosen).encoder.eval()
            batch = ssl_step.crops(4 if given.tiny else 256, size, given.device)
            with torch.inference_mode():
                x = encoder.preprocess(batch.images, batch.low, batch.high)
                spent = [ssl_step.seconds(encoder, x, given.device) for _ in range(5)]
            bare = len(batch) / min(spent)
            began = time.perf_counter()
            options = {"batch_size": len(batch), "device": given.device, "progress": False}
            embed(encoder, ShardDataset(Path(folder) / "shards"), num_workers=min(16, os.cpu_count() or 1), **options)
            rate = count / (time.perf_counter() - began)
            rows.append({"encoder": PATCHES[name], "embed_per_s": rate, "forward_per_s": bare, "share": rate / bare})
            report(rows[-1])
    return rows


def tests(given: argparse.Namespace) -> list[dict]:
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "-p", "no:cacheprovider", "tests/gpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    row = {"status": done.returncode, "output": done.stdout[-6000:] + done.stderr[-1000:]}
    print(row["output"], flush=True)
    return [row]


# Section -> (its function, minutes it may take).
SECTIONS: dict[str, tuple[Callable[[argparse.Namespace], list[dict]], float]] = {
    "steps": (steps, 3.0),
    "fed": (fed, 1.5),
    "clip": (clip, 0.5),
    "views": (views, 0.5),
    "embedding": (embedding, 1.0),
    "tests": (tests, 1.0),
    "compiled": (compiled, 2.0),
}


def report(row: dict) -> None:
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
    print("  " + ", ".join(f"{key} {value}" for key, value in shown.items()), flush=True)


def free(given: argparse.Namespace) -> None:
    if given.device == "cuda":
        torch.cuda.empty_cache()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of on_gpu.json")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tiny", action="store_true", help="a few crops, on any machine")
    given = parser.parse_args()
    given.device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.device == "cpu" and not given.tiny:
        parser.error("there is no GPU: give --tiny to run every line on the CPU")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_float32_matmul_precision("high")
    began = time.monotonic()
    card = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    found: dict = {"card": card, "machine": machine(), "torch": torch.__version__, "sections": {}}
    found |= {"pytorch_lightning": pl.__version__, "timm": metadata.version("timm"), "tiny": given.tiny}
    print(json.dumps({key: value for key, value in found.items() if key != "sections"}), flush=True)
    for name in given.sections:
        section, minutes = SECTIONS[name]
        left = given.minutes - (time.monotonic() - began) / 60
        if left < minutes / 2:
            found["sections"][name] = {"left out": f"{left:.1f} minutes were left"}
            continue
        print(f"{name} ({(time.monotonic() - began) / 60:.1f} min)", flush=True)
        try:
            found["sections"][name] = section(given)
        except Exception as error:  # the other sections are worth having
            traceback.print_exc()
            found["sections"][name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
        given.out.mkdir(parents=True, exist_ok=True)
        with write_atomically(given.out / "on_gpu.json") as partial:
            partial.write_text(json.dumps(found, indent=1))
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    return int(any(isinstance(rows, dict) and "error" in rows for rows in found["sections"].values()))


if __name__ == "__main__":
    sys.exit(main())
