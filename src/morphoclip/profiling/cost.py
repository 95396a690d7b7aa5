"""What embedding a screen takes: hours, core- or GPU-hours and disk, from a timed sample."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morphoclip.data.shards.parallel import cores
from morphoclip.models import Encoder
from morphoclip.profiling.embedding import tabulate
from morphoclip.profiling.encoding import CropSource, Run, encoded

SECONDS, SAMPLED_WELLS = 20.0, 64


@dataclass(frozen=True)
class Cost:
    """Measured on a sample: fields, crops and seconds of steady work; and what follows for the whole.

    Attributes:
        sampled, crops: fields and crops in the sample. seconds: they took.
        fields, wells, plates: of the whole.
        bytes: of the whole table on disk.
        unit: `core` or `GPU`. count: how many the process uses.
    """

    sampled: int
    crops: int
    seconds: float
    fields: int
    wells: int
    plates: int
    bytes: float
    unit: str
    count: int

    @property
    def hours(self) -> float:
        """Hours for the whole by one process like this one."""
        return self.seconds / self.sampled * self.fields / 3600

    def lines(self) -> list[str]:
        """What a user reads."""
        return [
            f"sample: {self.sampled} fields, {self.crops} crops in {self.seconds:.1f} s: "
            f"{self.sampled / self.seconds:.2f} fields/s, {self.crops / self.seconds:.1f} crops/s",
            f"all: {self.fields:,} fields, {self.wells:,} wells, {self.plates:,} plates: {self.hours:.3g} hours by one process, "
            f"{self.hours * self.count:.3g} {self.unit}-hours ({self.count} {self.unit}{'s' if self.count > 1 else ''})",
            f"disk: {self.bytes / 1e9:.3g} GB",
        ]


def cost_of(
    encoder: Encoder, crops: CropSource, level: str, run: Run, *, reduce: str = "mean", seconds: float = SECONDS
) -> Cost:
    """Embed wells spread evenly over the screen for about `seconds`, and extrapolate to all.

    The first batch, which warms up, is not timed. Nothing is written but a temporary table, whose size gives the disk.
    """
    wells = np.unique(crops.well[crops.visited])
    chosen = wells[np.unique(np.linspace(0, len(wells) - 1, min(SAMPLED_WELLS, len(wells))).astype(int))]
    sample = crops.only(np.isin(crops.well, chosen))
    for _ in encoded(encoder, _first_well(sample), run, progress=False):
        pass
    began, items, counted, elapsed = time.monotonic(), [], 0, 0.0
    for part, features in encoded(encoder, sample, run, progress=False):
        items.append((part, features))
        counted, elapsed = counted + len(part), time.monotonic() - began
        if elapsed > seconds:
            break
    fields = len(np.unique(np.concatenate([part.field for part, _ in items])))
    table = tabulate(iter(items), sample, "well" if level == "perturbation" else level, reduce)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        table.to_parquet(path, compression="zstd", index=False)
        per_field = path.stat().st_size / fields
    everything = len(crops.visited)
    gpu = run.device.type != "cpu"
    return Cost(
        sampled=fields,
        crops=counted,
        seconds=elapsed,
        fields=everything,
        wells=len(wells),
        plates=len(np.unique(crops.plate[crops.visited])),
        bytes=per_field * everything,
        unit="GPU" if gpu else "core",
        count=1 if gpu else cores(),
    )


def _first_well(crops: CropSource) -> CropSource:
    return crops.only(crops.well == crops.well[crops.visited[0]])
