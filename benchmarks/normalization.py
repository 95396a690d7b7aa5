"""Normalisation beside pycytominer: seconds for one table, and that both give the same numbers.

`python -m benchmarks.normalization [--wells 20000] [--features 1024] [--only STEP] [--check] [--json]`. Spheres need about
8 GB and 7 minutes: pycytominer's singular value decomposition holds a wells x wells matrix.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from time import perf_counter

import numpy as np
import pandas as pd
from pycytominer.operations.transform import RobustMAD, Spherize

from morphoclip.profiling import Normalizer

BARS = {"sphere": 15.0, "mad_robustize": 10.0}
REPEATS = {"sphere": 1, "mad_robustize": 5}  # in turns; medians count
# float32 is what profile tables hold; pycytominer's whitening is only exact in float64, so spheres are compared there.
CASES = (("sphere", "float64"), ("mad_robustize", "float64"), ("mad_robustize", "float32"))


def profiles(wells: int, features: int) -> pd.DataFrame:
    """Correlated features whose spreads differ by three orders of magnitude, in eight plates."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(features, features)) / features**0.5 + np.eye(features)
    x = generator.normal(size=(wells, features)) @ mixing * np.logspace(-1, 2, features)
    table = pd.DataFrame(x, columns=[f"f{i}" for i in range(features)])
    table.insert(0, "Metadata_Plate", [f"P{i % 8}" for i in range(wells)])
    return table


def timed(run: Callable[[], pd.DataFrame]) -> tuple[float, np.ndarray]:
    start = perf_counter()
    table = run()
    seconds = perf_counter() - start
    return seconds, table.filter(regex="^f").to_numpy()


def compare(step: str, dtype: str, table: pd.DataFrame) -> dict[str, object]:
    x = table.drop(columns="Metadata_Plate").astype(dtype)
    table = pd.concat([table[["Metadata_Plate"]], x], axis=1)
    theirs = {"sphere": lambda: Spherize(method="ZCA-cor"), "mad_robustize": RobustMAD}[step]()
    ours = Normalizer([{"step": step, "fit_on": "all", "by": "all"}])
    our_times, their_times = [], []
    for _ in range(REPEATS[step]):
        seconds, our_values = timed(lambda: ours.fit_transform(table))
        our_times.append(seconds)
        seconds, their_values = timed(lambda: theirs.fit_transform(x))
        their_times.append(seconds)
    our_seconds, their_seconds = median(our_times), median(their_times)
    return {
        "step": step,
        "dtype": dtype,
        "morphoclip_s": our_seconds,
        "pycytominer_s": their_seconds,
        "ratio": their_seconds / our_seconds,
        "bar": BARS[step],
        "largest_difference": float(np.abs(our_values - their_values).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wells", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=1024)
    parser.add_argument("--only", choices=list(BARS), help="this step alone")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    table = profiles(options.wells, options.features)
    rows = [compare(step, dtype, table) for step, dtype in CASES if options.only in (None, step)]
    about = {
        "wells": options.wells,
        "features": options.features,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        **{name: version(name) for name in ("morphoclip", "pycytominer", "numpy")},
    }
    if options.json:
        print(json.dumps({"about": about, "rows": rows}, indent=2))
    else:
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))
    missed = [
        f"{row['step']} in {row['dtype']}"
        for row in rows
        if row["ratio"] < row["bar"] or row["largest_difference"] > 1e-5
    ]
    if options.check and missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
