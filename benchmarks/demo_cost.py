"""What the demo costs: `python -m benchmarks.demo_cost [--check] [--json]`.

Runs `train.py` twice in a fresh folder, as a new user would, and prints processor and wall seconds of both starts (the
second reuses the prepared data; `--once` leaves it out). The bar: at most 400 processor seconds for the first.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

from benchmarks.demo import machine

BAR = 400


def run(output: str) -> dict[str, float]:
    """Processor and wall seconds of one start, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([sys.executable, "train.py", f"output_dir={output}"], check=True, stdout=sys.stderr)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor_s": round(cpu, 1), "wall_s": round(wall, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="only the first start")
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        found = {start: run(output) for start in (["first"] if given.once else ["first", "second"])}
    if given.json:
        print(json.dumps({"machine": machine(), **found}, indent=2))
    else:
        print(machine(), *(f"{start} start: {cost}" for start, cost in found.items()), sep="\n")
    return int(given.check and found["first"]["processor_s"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
