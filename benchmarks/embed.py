"""What embedding adds to the bare forward pass: `python -m benchmarks.embed [--check] [--json] [--crops N]`.

`covariance_vit` on 64 px crops from Blosc shards, whose forward pass takes less than 1 ms a crop on one core, so that reading
and bookkeeping are not hidden behind a large model. One thread computes. In turns: the forward pass with its preprocessing on
a batch in memory, the forward pass alone, `embed` as it reads in the same thread, with one thread that reads, and
`embed_screen` with one thread, which also writes a table per plate: a fixed cost,
large for these plates of 32 wells. Bars: with one thread that reads, at least 98 % of the forward
pass with its preprocessing. A rate is the median of the turns; other work on the machine slows all rows of a turn, so the
ratios are taken turn by turn. Beside the clock's ratio stands that of the computing thread's processor time, which other work
changes less: it leaves out only what that thread waits for.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np
import torch

from benchmarks.demo import machine
from benchmarks.noise_shards import write_shards
from morphoclip.data import ShardDataset
from morphoclip.models import create_encoder
from morphoclip.profiling.embedding import open_crops
from morphoclip.profiling.encoding import Run, encoded
from morphoclip.profiling.screen import embed_screen

SIZE, BATCH, TURNS, BAR = 64, 128, 5, 0.98
BARE, ALONE = "forward pass with preprocessing", "forward pass alone"
SERIAL, THREAD, SCREEN = "embed, no thread", "embed, one thread", "embed_screen, one thread"


def measure(crops: int, turns: int) -> dict[str, list[tuple[float, float]]]:
    """Name -> crops per second by the clock, and per second of the computing thread, in each turn."""
    torch.set_num_threads(1)
    run = Run(BATCH, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "dataset"
        write_shards(root, SIZE, crops)
        dataset = ShardDataset(root)
        torch.manual_seed(0)
        encoder = create_encoder("covariance_vit", image_size=SIZE).requires_grad_(False).eval()
        images = torch.from_numpy(dataset.read(range(BATCH)))
        low, high = (torch.from_numpy(limit) for limit in dataset.intensities(range(BATCH)))
        ready = encoder.preprocess(images, low, high)
        steps = -(-crops // BATCH)

        @torch.inference_mode()
        def bare() -> None:
            for _ in range(steps):
                encoder(encoder.preprocess(images, low, high)).float().numpy()

        @torch.inference_mode()
        def alone() -> None:
            for _ in range(steps):
                encoder(ready).float().numpy()

        def stream(workers: int) -> Callable[[], None]:
            source = open_crops(encoder, dataset, BATCH, num_workers=workers)

            def work() -> None:
                for _ in encoded(encoder, source, run, progress=False):
                    pass

            return work

        def screen() -> None:
            out = Path(folder) / "profiles.parquet"
            embed_screen(encoder, root, out, batch_size=BATCH, num_workers=1, progress=False, say=lambda line: None)

        rows = {BARE: bare, ALONE: alone, SERIAL: stream(0), THREAD: stream(1), SCREEN: screen}
        counts = {BARE: steps * BATCH, ALONE: steps * BATCH}
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        for turn in range(turns + 1):
            for name, work in rows.items():
                clock, processor = perf_counter(), thread_time()
                work()
                spent = perf_counter() - clock, thread_time() - processor
                if turn:  # the first warms up
                    count = counts.get(name, crops)
                    rates[name].append((count / spent[0], count / spent[1]))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--crops", type=int, default=8192)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rates = measure(arguments.crops, arguments.turns)
    bare, table = np.array(rates[BARE]), []
    for name, values in rates.items():
        rate, (clock, processor) = np.median(values, axis=0)[0], np.median(np.array(values) / bare, axis=0)
        row = {"what": name, "crops_per_s": float(rate), "ms_per_crop": 1000 / float(rate)}
        table.append(row | {"of_bare": float(clock), "of_bare_processor": float(processor)})
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": table}))
    else:
        print(f"{machine()}\n{'share of the first row by':62} {'clock':>7} {'processor':>9}")
        for row in table:
            numbers = f"{row['crops_per_s']:8.0f} crops/s {row['ms_per_crop']:7.2f} ms"
            print(f"{row['what']:34} {numbers:27} {row['of_bare']:7.1%} {row['of_bare_processor']:9.1%}")
    ratio = next(row["of_bare"] for row in table if row["what"] == THREAD)
    if arguments.check and ratio < BAR:
        sys.exit(f"one thread: {ratio:.1%} of the bare forward pass, the bar is {BAR:.0%}")


if __name__ == "__main__":
    main()
