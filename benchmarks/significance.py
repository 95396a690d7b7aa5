"""False discoveries and power of the p conventions: `python -m benchmarks.significance [--check] [--json]`.

Groups of `replicates` wells, one a plate, against `controls` DMSO wells a plate: pure noise, and a planted effect. Printed
is the share of groups with p < .05; on noise it should be .05.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np
import pandas as pd

from benchmarks.average_precision import machine

DESIGNS = ((2, 8), (4, 16), (5, 64))
FEATURES, DRAWS = 12, 999


def screen(rng: np.random.Generator, plates: int, controls: int, effect: float) -> tuple[pd.DataFrame, np.ndarray]:
    names = ["treatment", *["dmso"] * controls] * plates
    meta = pd.DataFrame({"pert": names, "plate": np.repeat(np.arange(plates).astype(str), controls + 1)})
    meta["control"] = meta["pert"] == "dmso"
    shift = effect * rng.standard_normal(FEATURES)
    return meta, rng.standard_normal((len(meta), FEATURES)) + np.where(meta["control"], 0, 1)[:, None] * shift


def rejected(plates: int, controls: int, effect: float, seeds: int) -> dict[str, float]:
    from morphoclip.evaluation import average_precision, exchange_test, mean_average_precision

    found: dict[str, list[bool]] = {"exact": [], "copairs": [], "published": []}
    rules = (["pert"], [], ["plate"], ["control"])
    for seed in range(seeds):
        meta, feats = screen(np.random.default_rng([seed, plates, controls]), plates, controls, effect)
        meta["pert"] = meta["pert"].replace("treatment", f"treatment{seed}")  # a group's name sets its draws apart
        asks = ~meta["control"].to_numpy()
        table = exchange_test(meta, feats, *rules, ["pert"], exchange_with="negatives", draws=DRAWS, queries=asks)
        found["exact"].append(table["p_value"].iloc[0] < 0.05)
        ap = average_precision(meta, feats, *rules, queries=asks).dropna()
        for convention in ("copairs", "published"):
            p = mean_average_precision(ap, ["pert"], null_size=DRAWS, p_convention=convention)["p_value"].iloc[0]
            found[convention].append(p < 0.05)
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--check", action="store_true", help="exit 1 where `exact` finds too much in noise")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for plates, controls in DESIGNS:
        for what, effect in (("noise", 0.0), ("effect", 0.6)):
            rows.append(
                {
                    "replicates": plates,
                    "controls": controls,
                    "what": what,
                    **rejected(plates, controls, effect, options.seeds),
                }
            )
    table = pd.DataFrame(rows)
    print(
        json.dumps({"machine": machine(), "rows": rows})
        if options.json
        else f"{machine()}\n{table.to_string(index=False)}"
    )
    bar = 0.05 + 2 * np.sqrt(0.05 * 0.95 / options.seeds)
    if options.check and (table.loc[table["what"] == "noise", "exact"] > bar).any():
        sys.exit(f"exact finds more than {bar:.3f} in noise")


if __name__ == "__main__":
    main()
