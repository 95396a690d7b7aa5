"""Write a simulated Cell Painting screen: `python -m data_prep.simulate --out DIR --seed 0 [--layout scrambled] [...]`."""

from __future__ import annotations

import argparse
import time
from dataclasses import fields
from pathlib import Path

from morphoclip.simulation import ScreenConfig, simulate_screen
from morphoclip.simulation.layout import plan


def main(arguments: list[str] | None = None) -> Path:
    """One option for every field of `ScreenConfig`; plates a batch are given as `--compound-plates 1 1 2`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--workers", type=int, default=None, help="processes; all cores by default")
    for option in fields(ScreenConfig):
        many = isinstance(option.default, tuple)
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type=int if many else type(option.default),
            nargs="+" if many else None,
            default=option.default,
            help="a number a batch" if many else "",
        )
    given = vars(parser.parse_args(arguments))
    out, workers = given.pop("out"), given.pop("workers")
    config = ScreenConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})
    plates = plan(config)
    count = sum(len(plate.wells) for plate in plates) * config.sites
    kept = out.exists()
    print(f"{len(plates)} plates, {count} fields of {config.field_size} x {config.field_size} px to {out}")
    start = time.perf_counter()
    folder = simulate_screen(out, config, workers)
    seconds = time.perf_counter() - start
    print(f"{folder} was complete already" if kept else f"{folder}: {count / seconds:.1f} fields/s in {seconds:.0f} s")
    return folder


if __name__ == "__main__":
    main()
