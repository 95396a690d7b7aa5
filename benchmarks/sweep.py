"""A sweep over 5,270 orders of normalisation steps on three plates of 384 wells, beside the same pipelines one by one.

`python -m benchmarks.sweep [--pipelines 500] [--plain 20] [--plates FOLDER] [--processes 2] [--check] [--json]`. The orders
timed are evenly spread runs of neighbours. One by one: `Normalizer` on the whole table, then `average_precision`, in one process.
Plates: the folder of three CPJUMP1 plates (profiles/, metadata/), or else noise of their shape.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import yaml
from hydra.utils import instantiate

from morphoclip import configs_dir, schema
from morphoclip.evaluation import Protocol, average_precision
from morphoclip.experiment.pipelines.axes import Axes, Order, chunks
from morphoclip.experiment.pipelines.processes import scored
from morphoclip.experiment.pipelines.scores import SCORES
from morphoclip.experiment.pipelines.sweep import CHUNK
from morphoclip.experiment.pipelines.tables import FIT, WellSet, well_sets
from morphoclip.profiling import Normalizer, read_profiles

WHOLE, MINUTES, RATIO, DIFFERENCE = 5000, 12.0, 1.5, 1e-6
RUN = 5 * CHUNK  # orders of a run: shorter ones would share fewer first steps than those of a whole sweep
PLATES = Path(__file__).parents[1] / "../shared/data/cpjump1"


def config(group: str, name: str) -> dict:
    return yaml.safe_load(Path(configs_dir(), group, f"{name}.yaml").read_text())


def three_plates(folder: Path) -> WellSet:
    """The set of three plates in `folder`, or noise of its shape."""
    if folder.is_dir():
        protocol: Protocol = instantiate(config("protocol", "cpjump1"))
        table = read_profiles(str(folder / "profiles/*.csv.gz"), metadata=str(folder / "metadata"), notes=[])
        return well_sets({"cellprofiler": table}, protocol)[0][0]
    wells = (
        [(f"c{k}", "") for k in range(260)]
        + [(f"pos{k % 42}", "poscon") for k in range(60)]
        + [("DMSO", "negcon")] * 64
    )
    about = [
        schema.PLATE,
        schema.WELL,
        schema.PERTURBATION,
        schema.CONTROL_TYPE,
        schema.MODALITY,
        schema.CELL_LINE,
        schema.TIMEPOINT,
    ]
    rows = [
        (f"P{plate}", schema.well_name(*divmod(i, 24)), name, control, "compound", "U2OS", "24")
        for plate in range(3)
        for i, (name, control) in enumerate(wells)
    ]
    x = np.random.default_rng(0).standard_normal((len(rows), 904)).round(4)
    table = pd.concat(
        [pd.DataFrame(rows, columns=about), pd.DataFrame(x, columns=[f"f{i}" for i in range(904)])], axis=1
    )
    return well_sets({"noise": table}, Protocol())[0][0]


def spread(orders: list[Order], number: int) -> list[list[Order]]:
    """Evenly spread runs of neighbouring orders, about `number` in all, in the parts that a sweep deals to processes."""
    runs = list(chunks(orders, RUN))
    middles = (np.arange(max(1, round(number / RUN))) + 0.5) / max(1, round(number / RUN))
    return [part for i in (middles * len(runs)).astype(int) for part in chunks(runs[i], CHUNK)]


def plain(wells: WellSet, steps: list) -> dict[str, float]:
    """The scores of one pipeline by `Normalizer` and `average_precision`."""
    table = pd.concat([wells.metadata, pd.DataFrame(wells.x, columns=wells.names)], axis=1)
    scored_rows = wells.fold != FIT
    normalized = Normalizer(steps).fit_transform(table)[scored_rows]
    metadata, features = schema.split_columns(normalized)
    x = normalized[features].to_numpy()
    signal, half, negcon = wells.signal[scored_rows], wells.half[scored_rows], wells.negcon[scored_rows]
    meta = normalized[metadata].assign(_negcon=negcon)
    ap = average_precision(meta, x, [schema.PERTURBATION], [], [schema.PLATE], ["_negcon"], queries=signal)
    found = {}
    for side, name in enumerate(("chosen", "reported")):
        of_half = ap[signal & (half == side)].groupby(schema.PERTURBATION)["average_precision"]
        found[f"{name}_signal"] = float(of_half.mean().mean())
        rows = ~negcon & (half == side)
        by_plate = average_precision(meta[rows], x[rows], [schema.PLATE], [], [], [schema.PLATE])
        found[f"{name}_batch_effect"] = float(by_plate["average_precision"].mean())
    return found


def processor_seconds() -> float:
    """User and system time of this process and of its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, default=500)
    parser.add_argument("--plain", type=int, default=20, help="pipelines that are also scored one by one")
    parser.add_argument("--plates", type=Path, default=PLATES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args()
    small, large = (config("sweep", name)["sweep"] for name in ("pipelines", "pipelines_5000"))
    axes = Axes.of(small["steps"] | large["steps"], large["depth"])
    wells = three_plates(options.plates)
    runs = spread(axes.orders(), options.pipelines)
    start, busy = perf_counter(), processor_seconds()
    lines = [line for part in scored([wells], axes, [(0, run) for run in runs], options.processes) for line in part]
    seconds, busy = perf_counter() - start, processor_seconds() - busy
    some = lines[:: max(1, len(lines) // max(1, options.plain))]
    plain_busy, difference = processor_seconds(), 0.0
    for line in some:
        want = plain(wells, [axes.steps[name] for name in line["order"]])
        difference = max(difference, *(abs(line["scores"]["well"][name] - want[name]) for name in SCORES))
    plain_busy = (processor_seconds() - plain_busy) / len(some)
    each = busy / len(lines)
    found = {
        "pipelines": len(lines),
        "pipelines_a_second": len(lines) / seconds,
        f"minutes_for_{WHOLE}": WHOLE * seconds / len(lines) / 60,
        "processor_s_a_pipeline": each,
        f"minutes_for_{WHOLE}_on_idle_cores": WHOLE * each / options.processes / 60,
        "one_by_one_processor_s_a_pipeline": plain_busy,
        "ratio": plain_busy / each,
        "largest_difference": difference,
    }
    about = {
        "wells": len(wells.x),
        "features": len(wells.names),
        "profiles": wells.encoder,
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {options.processes} processes",
        **{name: version(name) for name in ("morphoclip", "numpy", "scipy")},
    }
    if options.json:
        print(json.dumps({"about": about, "found": found}, indent=2))
    else:
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        print("\n".join(f"{key:35} {value:.4g}" for key, value in found.items()))
    missed = [
        text
        for text, bad in (
            (f"{MINUTES:g} minutes for {WHOLE:,} pipelines", found[f"minutes_for_{WHOLE}"] > MINUTES),
            (f"{RATIO:g} times the speed of one by one", found["ratio"] < RATIO),
            (f"equal scores to {DIFFERENCE:g}", difference > DIFFERENCE),
        )
        if bad
    ]
    if options.check and missed:
        sys.exit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
