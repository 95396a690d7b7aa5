"""Time and memory of average_precision beside copairs': `python -m benchmarks.average_precision [--check] [--json]`.

Plates of 384 wells x 512 float32 features, 64 DMSO wells a plate, negatives pooled over plates. Each measurement is a
process of its own; memory is its peak resident set less what it held before the call.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import numpy as np
import pandas as pd

FEATURES, WELLS, CONTROLS = 512, 384, 64
RULES = (["perturbation"], [], [], ["negcon"])
SPEED_BAR, MEMORY_BAR = 60.0, 1 / 8
PACKAGES = {"ours": "morphoclip", "copairs": "copairs"}


def plates(count: int, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """`count` plates of one layout: 320 compounds and 64 DMSO wells each."""
    rng = np.random.default_rng(seed)
    well = np.tile(np.arange(WELLS), count)
    negcon = well < CONTROLS
    meta = pd.DataFrame(
        {
            "plate": np.repeat(np.arange(count), WELLS).astype(str),
            "perturbation": np.where(negcon, "DMSO", np.char.add("compound", well.astype(str))),
            "negcon": negcon.astype(int),
        }
    )
    effect = rng.standard_normal((WELLS, FEATURES), dtype=np.float32) * (np.arange(WELLS) >= CONTROLS)[:, None]
    return meta, rng.standard_normal((len(meta), FEATURES), dtype=np.float32) + np.float32(0.1) * effect[well]


def measure(package: str, count: int) -> dict[str, float]:
    """Seconds, MiB above the start, and mean AP of one call in this process."""
    meta, feats = plates(count)
    if package == "ours":
        from morphoclip.evaluation import average_precision

        def call() -> pd.DataFrame:
            return average_precision(meta, feats, *RULES)
    else:
        from copairs.map import average_precision as theirs

        def call() -> pd.DataFrame:
            return theirs(meta, feats, *RULES, progress_bar=False)

    held = resident("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    table = call()
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - busy,
        "MiB": (resident("VmHWM") - held) / 1024,
        "mean_ap": float(table["average_precision"].mean()),
    }


def resident(field: str) -> int:
    """kB of this process, from the kernel: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(field)).split()[1])


def in_a_process(module: str, *arguments: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:  # copairs keeps a cache in the home folder
        command = [sys.executable, "-m", module, "--measure", *arguments]
        run = subprocess.run(command, capture_output=True, text=True, env=environment(home), check=False)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def environment(home: str) -> dict[str, str]:
    import os

    return {**os.environ, "HOME": home}


def machine() -> str:
    import os

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("morphoclip", "copairs", "numpy"))
    return f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plates", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar at 50 plates is missed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=2, metavar=("PACKAGE", "PLATES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]))))
        return
    rows = []
    for count in options.plates:
        ours, theirs = (in_a_process("benchmarks.average_precision", package, str(count)) for package in PACKAGES)
        rows.append(
            {
                "plates": count,
                "seconds": ours["seconds"],
                "copairs_seconds": theirs["seconds"],
                "times_faster": theirs["seconds"] / ours["seconds"],
                "times_less_cpu": theirs["cpu_seconds"] / ours["cpu_seconds"],
                "MiB": ours["MiB"],
                "copairs_MiB": theirs["MiB"],
                "memory_ratio": ours["MiB"] / theirs["MiB"],
                "mean_ap_difference": abs(ours["mean_ap"] - theirs["mean_ap"]),
            }
        )
    table = pd.DataFrame(rows)
    print(
        json.dumps({"machine": machine(), "rows": rows})
        if options.json
        else f"{machine()}\n{table.to_string(index=False, float_format='{:.3g}'.format)}"
    )
    large = table[table["plates"] >= 50]
    missed = large[(large["times_faster"] < SPEED_BAR) | (large["memory_ratio"] > MEMORY_BAR)]
    if options.check and len(missed):
        sys.exit(f"missed: {SPEED_BAR:.0f}x faster with 1/8 of the memory\n{missed}")


if __name__ == "__main__":
    main()
