"""What one card does in at most eight minutes: `python -m benchmarks.on_gpu --out FOLDER [--sections …] [--tiny]`.

Sections, in the order of their worth. Each row is in FOLDER/on_gpu.json as soon as it is measured; a section that is out of
time leaves its other rows out:

- ceilings: a large matrix product in bf16 and a copy, which no step can exceed;
- steps: crops/s and model FLOP utilisation of whole training steps (ViT-S/16, ViT-B/16; bf16 autocast, eager), beside
  lightly's modules doing the same work (`benchmarks.ssl_step`);
- fed: crops/s and `data_wait` of the trainer on Blosc shards that our loader reads, beside the loader and the step alone;
- clip: 65,536 pairs of the CLIP loss, chunked beside plain (`benchmarks.clip_memory`);
- views: making DINO's views beside a device copy (`benchmarks.gpu_augment`);
- embedding: `profiling.embed` from shards beside the bare forward pass, both in float32;
- profile: the share of a step in which the device works, and the operations that take its time (tables in FOLDER);
- compiled: steps with compiled transformer blocks beside eager ones;
- tests: `pytest -m gpu` (output in FOLDER).

FLOPs are those of the matrix products, attentions and convolutions of a real step, forward and backward, teachers included;
utilisation is of the card's bf16 peak without sparsity by NVIDIA's data sheet (H100 and H200: 989 TFLOP/s). `--tiny` runs
every line on a CPU, for a test.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.demo import machine
from benchmarks.gpu.fed import fed
from benchmarks.gpu.pieces import ceilings, clip, embedding, views
from benchmarks.gpu.run import Run
from benchmarks.gpu.steps import compiled, eager, profiled


def tests(run: Run) -> None:
    log = run.out / "gpu_tests.txt"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--tb=short", "-p", "no:cacheprovider", "tests/gpu"]
    with run.row(tests="tests/gpu") as record:
        try:
            with log.open("w") as output:
                limit = max(30.0, 60 * run.left)
                done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=limit, check=False)
            record(status=done.returncode)
        finally:
            print(log.read_text()[-3000:], flush=True)


# Name -> (function, minutes it may take).
SECTIONS: dict[str, tuple[Callable[[Run], None], float]] = {
    "ceilings": (ceilings, 0.2),
    "steps": (eager, 2.3),
    "fed": (fed, 2.4),
    "clip": (clip, 0.4),
    "views": (views, 0.2),
    "embedding": (embedding, 0.5),
    "profile": (profiled, 0.6),
    "compiled": (compiled, 1.0),
    "tests": (tests, 1.2),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all sections together")
    parser.add_argument("--tiny", action="store_true", help="a few crops, on any machine")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.tiny:
        parser.error("there is no GPU: give --tiny to run every line on the CPU")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    facts = {"card": torch.cuda.get_device_name() if device == "cuda" else "CPU", "machine": machine()}
    facts |= {name: metadata.version(name) for name in ("torch", "pytorch-lightning", "timm", "lightly", "numpy")}
    print(json.dumps(facts), flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(given.out, Path(scratch), device, given.tiny, given.minutes, facts | {"tiny": given.tiny})
        for name in given.sections:
            section, minutes = SECTIONS[name]
            run.enter(name, minutes)
            with run.row(section=name):
                section(run)
        print(f"{run.spent:.1f} minutes; {run.out / 'on_gpu.json'}")
    return int(run.failed)


if __name__ == "__main__":
    sys.exit(main())
