"""What a rank's random draws of one step cost on 1, 8 and 64 ranks: `python -m benchmarks.draws [--check] [--json]`.

Of 64 crops a rank: two views (flips and colour), and the masks of MAE's 196 patches; of 256 bags a rank: the crops that
`Bags` chooses. Beside each the same draws for the batch of all ranks, of which the rank then takes its own, as a state of a
random generator would need it. The bar: on 64 ranks a rank's draws take at most 1.5 times those on one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.demo import machine
from morphoclip.augment import Color, Compose, Flip, Rows, draw_visible
from morphoclip.data.sampling.samplers import Bags

RANKS, CROPS, BAGS, PATCHES = (1, 8, 64), 64, 256, 196
BAR = 1.5


def screen(perturbations: int) -> SimpleNamespace:
    """What `Bags` reads of a mixture: each perturbation in four wells on two plates, with six crops each."""
    wells = np.arange(4 * perturbations)
    codes = SimpleNamespace(
        perturbation=wells // 4, condition=wells // 4, plate=wells % 2, well=wells, is_control=wells < 4
    )
    named = np.ones(len(wells), bool)
    crops = np.repeat(wells, 6)

    class Screen(SimpleNamespace):
        def __len__(self) -> int:
            return len(crops)

    return Screen(codes=codes, named=named, all_fields=lambda: crops)


def draws(ranks: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name -> (the draws of the last rank alone, those of all ranks)."""
    augmentation, last = Compose([Flip(), Color()]), (ranks - 1) * CROPS
    plan = Bags(screen(2 * ranks * BAGS), ranks * BAGS, 0)
    return {
        "two views": (
            lambda: [augmentation.draw(CROPS, 5, Rows(key, last)) for key in (1, 2)],
            lambda: [augmentation.draw(ranks * CROPS, 5, Rows(key)) for key in (1, 2)],
        ),
        "MAE's masks": (
            lambda: draw_visible(CROPS, PATCHES, PATCHES // 2, Rows(3, last)),
            lambda: draw_visible(ranks * CROPS, PATCHES, PATCHES // 2, Rows(3)),
        ),
        "bags": (lambda: plan.rows(0, 0, (ranks - 1, ranks)), lambda: plan.rows(0, 0)),
    }


def seconds(function: Callable[[], object], repeats: int) -> float:
    """The shortest of `repeats` runs after one that is not counted, as `timeit` advises: all else is the machine's other work."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def measure(repeats: int) -> list[dict[str, float | str | int]]:
    rows: list[dict] = []
    for ranks in RANKS:
        for name, (own, all_ranks) in draws(ranks).items():
            few = min(repeats, 3) if name == "bags" else repeats
            rows.append({"draws": name, "ranks": ranks, "own_s": seconds(own, few), "all_s": seconds(all_ranks, few)})
    alone = {row["draws"]: row["own_s"] for row in rows if row["ranks"] == 1}
    return [row | {"growth": row["own_s"] / alone[row["draws"]]} for row in rows]


def show(rows: list[dict]) -> str:
    lines = [
        "| draws of a step | ranks | of a rank, ms | of all ranks, ms | a rank's, of those on one rank |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['draws']} | {r['ranks']} | {1e3 * r['own_s']:.2f} | {1e3 * r['all_s']:.2f} | {r['growth']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(given.repeats)
    print(json.dumps({"machine": machine(), "rows": rows}, indent=2) if given.json else f"{machine()}\n\n{show(rows)}")
    return int(given.check and any(row["growth"] > BAR for row in rows))


if __name__ == "__main__":
    sys.exit(main())
