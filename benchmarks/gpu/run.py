"""One run of `benchmarks.on_gpu`: its device and sizes, its time, and the rows it found."""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.noise_shards import write_shards
from morphoclip.files import write_atomically

ENCODERS = {"vit_small": "ViT-S/16", "vit_base": "ViT-B/16"}
# Crops of 224 pixels a step. MAE's and DINO's of ViT-B are Kim et al.'s; a batch that does not fit the card is halved.
BATCHES = {
    "simclr": {"vit_small": 512, "vit_base": 256},
    "mae": {"vit_small": 1536, "vit_base": 1536},
    "dino": {"vit_small": 256, "vit_base": 192},
    "cwa_msn": {"vit_small": 256, "vit_base": 128},
}
LOCAL_VIEWS = {"dino": 8, "cwa_msn": 10}
CROPS = {224: 8192, 448: 1024}  # crop size in pixels -> crops in the dataset of noise


@dataclass
class Run:
    """Where and how large to measure, and what was found so far: `out`/on_gpu.json has every row as soon as it is there.

    Attributes:
        out: folder of the results; scratch: folder for datasets.
        tiny: a few crops on a small ViT, to test every line on a CPU.
        minutes: for all sections together.
    """

    out: Path
    scratch: Path
    device: str
    tiny: bool
    minutes: float
    facts: dict
    sections: dict[str, dict] = field(default_factory=dict)
    section: str = ""
    began: float = field(default_factory=time.monotonic)
    section_ends: float = float("inf")

    @property
    def spent(self) -> float:
        """Minutes since the run began."""
        return (time.monotonic() - self.began) / 60

    @property
    def left(self) -> float:
        """Minutes left to the section."""
        return min(self.minutes, self.section_ends) - self.spent

    @property
    def failed(self) -> bool:
        return any(row.get("error") for section in self.sections.values() for row in section["rows"])

    @cached_property
    def workers(self) -> int:
        return min(16, os.cpu_count() or 1)

    def enter(self, section: str, minutes: float) -> None:
        print(f"{section} (at {self.spent:.1f} min)", flush=True)
        self.section, self.section_ends = section, self.spent + minutes
        self.sections[section] = {"began_min": self.spent, "rows": []}

    def record(self, **row: object) -> None:
        self.sections[self.section]["rows"].append(row)
        self.sections[self.section]["ended_min"] = self.spent
        with write_atomically(self.out / "on_gpu.json") as partial:
            partial.write_text(json.dumps({**self.facts, "sections": self.sections}, indent=1))
        shown = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items() if k != "output"}
        print("  " + ", ".join(f"{key} {value}" for key, value in shown.items()), flush=True)

    @contextmanager
    def row(self, **names: object) -> Iterator[Callable[..., None]]:
        """A function that records a row called `names`. An error is recorded in its place; the next row goes on."""
        try:
            yield lambda **found: self.record(**{**names, **found})
        except Exception as error:  # the other rows are worth having
            traceback.print_exc()
            self.record(**names, error=f"{type(error).__name__}: {error}"[:2000])
        self.free()

    def timely(self, rows: list[tuple]) -> Iterator[tuple]:
        """The rows of a section as long as it has time; the others are recorded as left out."""
        for row in rows:
            if self.left > 0:
                yield row
            else:
                self.record(row=str(row), left_out="no time left")

    def grid(self, *rows: tuple[str, str]) -> Iterator[tuple[str, str, argparse.Namespace]]:
        """(encoder, method, settings of `ssl_step`) of each row in time; the first alone where the run is tiny."""
        for encoder, method in self.timely(list(rows[:1] if self.tiny else rows)):
            yield encoder, method, self.settings(encoder, method)

    def settings(self, encoder: str, method: str) -> argparse.Namespace:
        return argparse.Namespace(
            encoder="vit_tiny" if self.tiny else encoder,
            batch=2 if self.tiny else BATCHES[method][encoder],
            local_views=1 if self.tiny else LOCAL_VIEWS.get(method, 0),
            repeats=1 if self.tiny else 5,
            warmup=0 if self.tiny else 2,
            device=self.device,
            bf16=True,
            peak_tflops=None,
            fed_steps=0,
        )

    def shards(self, size: int) -> Path:
        """A dataset of noise on Blosc shards, written when it is first asked for."""
        folder = self.scratch / f"noise-{size}"
        if not folder.is_dir():
            write_shards(folder, size, 16 if self.tiny else CROPS[size])
        return folder

    def halving(self, measure: Callable[[argparse.Namespace], dict], chosen: argparse.Namespace) -> dict:
        """What `measure` gives at the largest batch that fits the card: the chosen one, a half, a quarter, …"""
        while True:
            try:
                return {"batch": chosen.batch, **measure(chosen)}
            except torch.OutOfMemoryError:
                if chosen.batch == 1:
                    raise
            self.free()
            chosen.batch //= 2

    def free(self) -> None:
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float | None:
        """Most memory that tensors held since the last `free`."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else None
