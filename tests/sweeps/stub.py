"""A training as a sweep sees it, in milliseconds: writes run.json and curves, ends at prune.json, saves at SIGTERM.

Its loss at step s is |log10(lr) + 3| + 1 / s; with lr above 0.1 it crashes, below 2e-5 it is slow, and it never ends while `hang` lies in the
folder of its outputs.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    given = {key.lstrip("+"): value.strip("'") for key, _, value in (a.partition("=") for a in sys.argv[1:])}
    folder = Path(given["output_dir"]) / given["name"] / given["run_id"]
    lr, steps = float(given["optimizer.lr"]), int(given.get("trainer.max_steps", 10))
    record = folder / "run.json"
    known = json.loads(record.read_text()) if record.is_file() else {"starts": [], "step": 0}
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))

    def write(state: str, **fields: object) -> None:
        known.update(state=state, **fields)
        (folder / "partial").write_text(json.dumps(known))
        os.replace(folder / "partial", record)

    known["starts"].append([os.getpid(), known["step"]])
    write("running", reason=None, started="2026-01-01T00:00:00+00:00")
    curves = folder / "logs/metrics.csv"
    curves.parent.mkdir(exist_ok=True)
    if not curves.is_file():
        curves.write_text("step,train/loss\n")
    while known["step"] < steps or (Path(given["output_dir"]) / "hang").is_file():
        if lr > 0.1:
            write("failed", reason=f"FloatingPointError: loss at step 3 not finite with {lr:g}")
            sys.exit("error: the loss is not finite")
        known["step"] += 1
        with curves.open("a") as file:
            file.write(f"{known['step']},{abs(math.log10(lr) + 3) + 1 / known['step']}\n")
        until = time.monotonic() + (0.01 if lr > 2e-5 else 0.1)
        while time.monotonic() < until:
            time.sleep(0.005)
        if (folder / "prune.json").is_file():
            write("pruned", reason="pruned")
            sys.exit(80)
        if asked:
            write("interrupted", reason="interrupted by SIGTERM")
            sys.exit(143)
    write("finished", ended="2026-01-01T00:00:09+00:00")


if __name__ == "__main__":
    main()
