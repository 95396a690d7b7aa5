"""Fields a second and core of the simulator, TIFFs included: `python -m benchmarks.simulator [--check]`. Bar: 10."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.demo import machine
from morphoclip.simulation import ScreenConfig, simulate_screen

BAR = 10.0
SCREEN = ScreenConfig(compound_plates=(1,), crispr_plates=(0,), orf_plates=(0,))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        screen = simulate_screen(Path(folder) / "screen", SCREEN, workers=1, progress=False)
        seconds = time.process_time() - start
        fields = len(list(screen.rglob("*ch1sk1fk1fl1.tiff")))
    print(
        f"{machine()}\n{fields} fields of 5 x 256 x 256 in {seconds:.1f} processor s: {fields / seconds:.1f} a second and core"
    )
    return int(given.check and fields / seconds < BAR)


if __name__ == "__main__":
    sys.exit(main())
