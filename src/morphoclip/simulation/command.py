"""The command `morphoclip data simulate`: write a simulated Cell Painting screen."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from morphoclip.simulation import ScreenConfig, simulate_screen
from morphoclip.simulation.layout import plan


def main(arguments: Sequence[str] | None = None, prog: str = "morphoclip data simulate") -> int:
    """Run the command; returns 0, or 2 on bad input.

    There is one option for every field of `ScreenConfig`; plates per batch are given as `--compound-plates 1 1 2`.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write a simulated Cell Painting screen.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--workers", type=int, default=None, help="processes; all cores by default")
    for option in fields(ScreenConfig):
        many = isinstance(option.default, tuple)
        parser.add_argument(
            "--" + option.name.replace("_", "-"),
            type=int if many else type(option.default),
            nargs="+" if many else None,
            default=option.default,
            help="one number per batch" if many else "",
        )
    given = vars(parser.parse_args(arguments))
    out, workers = given.pop("out"), given.pop("workers")
    try:
        chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        _simulate(ScreenConfig(**chosen), out, workers)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _simulate(config: ScreenConfig, out: Path, workers: int | None) -> None:
    plates = plan(config)
    count = sum(len(plate.wells) for plate in plates) * config.sites
    kept = out.exists()
    print(f"{len(plates)} plates, {count} fields of {config.field_size} x {config.field_size} px to {out}")
    start = time.perf_counter()
    folder = simulate_screen(out, config, workers)
    seconds = time.perf_counter() - start
    print(f"{folder} is already complete" if kept else f"{folder}: {count / seconds:.1f} fields/s in {seconds:.0f} s")
