"""Does each labels-free method lift replicates on unseen plates? `python -m benchmarks.ssl_quality [--check] [--json]`.

Every method trains on the demo's simulated screen, one seed after another, within ten minutes on two cores, from its
`_debug` recipe with the changes below: more steps, views without colour jitter, a faster teacher. Scored is the
replicate mAP of wells on the batch of plates it never saw, of compounds it never saw, against its own untrained
encoder on the same wells: the gain is paired, its interval resamples seeds and perturbations. A finished (method, seed)
is kept in the output folder under a hash of its configuration and not trained again.

`--check` exits 1 unless every method's interval lies above 0 and its training took at most 1200 processor seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import train
from benchmarks.demo import machine
from morphoclip import configs_dir, scoring
from morphoclip.evaluation import compare

TASK = "replicate"
BAR_S = 1200


def view(size: int) -> str:
    """A list of transforms in Hydra's words: a crop of a crop, mirrored, rotated by any angle."""
    target = "{_target_: morphoclip.augment."
    return f"[{target}RandomCrop, size: {size}}}, {target}Flip, p: 0.5}}, {target}Affine, degrees: 180.0, zoom: 0.1}}]"


VIEWS = [f"method.global_view.transforms={view(48)}", f"method.local_view.transforms={view(32)}"]
CHANGES: dict[str, tuple[str, list[str]]] = {
    "SimCLR": (
        "kim2025_simclr_debug",
        ["augment=flip_affine", "data.loader.batch_size=240", "trainer.max_steps=800"],
    ),
    "DINO": (
        "kim2025_dino_debug",
        [
            *VIEWS,
            *["data.loader.batch_size=120", "trainer.max_steps=1200", "method.local_views=4", "method.out_dim=1024"],
            *["method.ema_momentum.start=0.99", "optimizer.lr=5e-4"],
        ],
    ),
    "MAE": (
        "kim2025_mae_debug",
        ["data.loader.batch_size=64", "trainer.accumulate_grad_batches=1", "trainer.max_steps=1200"],
    ),
    "MSN": (
        "cwa_msn_debug",
        [
            *VIEWS,
            *["data.loader.sampler=uniform", "data.loader.batch_size=120", "trainer.max_steps=1000"],
            *["method.local_views=4", "method.ema_momentum.schedule.start=0.99"],
        ],
    ),
    "CWA-MSN": (
        "cwa_msn_debug",
        [
            *VIEWS,
            *["data.loader.batch_size=120", "trainer.max_steps=1000"],
            *["method.local_views=4", "method.ema_momentum.schedule.start=0.99"],
        ],
    ),
}
SCORED = ["score=heldout", "normalize=center_sphere", "score.encoders=null", f"score.tasks=[{TASK}]"]


def configuration(name: str, seed: int, output: Path, overrides: list[str]) -> DictConfig:
    """The run's configuration; its folder carries a hash of everything in it."""
    experiment, changes = CHANGES[name]
    given = [f"experiment={experiment}", f"output_dir={output}", f"seed={seed}", *changes, *SCORED, *overrides]
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=given)
    config.name = f"ssl_quality/{name.lower()}"
    config.data.loader.split = train.training_split(config.data)
    config.run_id = f"{seed}-{hashlib.sha256(OmegaConf.to_yaml(config, resolve=True).encode()).hexdigest()[:8]}"
    config.folder = str(output / config.name / config.run_id)
    return config


def run(name: str, seed: int, output: Path, overrides: list[str]) -> dict:
    """{'trained': card, 'untrained': card, 'cpu_s': …, 'wall_s': …}; kept, and read again where it exists."""
    config = configuration(name, seed, output, overrides)
    kept = Path(config.folder) / "cards.pickle"
    if kept.is_file():
        return pickle.loads(kept.read_bytes())
    kept.parent.mkdir(parents=True, exist_ok=True)
    train.prepare_data(config.data)
    cpu, wall = time.process_time(), time.perf_counter()
    method, loader = train.fit(config)
    cost = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    encoders = {"untrained": scoring.untrained(config, method, loader), "trained": method.export_encoder().eval()}
    tables = scoring.profiles(encoders, train.open_dataset(config, loader), kept.parent / "profiles")
    found = {key: scoring.score_held_out(config, table)[0] for key, table in tables.items()} | cost
    partial = kept.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(found))
    partial.replace(kept)
    return found


def row(name: str, runs: list[dict]) -> dict:
    """A line of the table: means over seeds, the paired gain and its interval."""
    trained, untrained = [r["trained"] for r in runs], [r["untrained"] for r in runs]
    gain = compare(trained, untrained, [TASK])
    scores = {
        key: sum(float(scoring.shown_row(card, TASK)["value"]) for card in cards) / len(cards)
        for key, cards in {"untrained": untrained, "trained": trained}.items()
    }
    cost = {key: sum(r[key] for r in runs) / len(runs) for key in ("cpu_s", "wall_s")}
    chance = float(scoring.shown_row(trained[0], TASK)["chance"])
    interval = {"gain": gain.value, "ci_low": gain.ci_low, "ci_high": gain.ci_high}
    return {"method": name, "chance": chance, **scores, **interval, "seeds": len(runs), **cost}


def show(table: list[dict]) -> str:
    lines = [
        "| method | chance | untrained | trained | gain [95 %] | seeds | training CPU-s | wall s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in table:
        gain = f"{r['gain']:+.3f} [{r['ci_low']:+.3f}, {r['ci_high']:+.3f}]"
        scores = " | ".join(f"{r[key]:.3f}" for key in ("chance", "untrained", "trained"))
        lines.append(f"| {r['method']} | {scores} | {gain} | {r['seeds']} | {r['cpu_s']:.0f} | {r['wall_s']:.0f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="its simulated screen is reused")
    parser.add_argument("--methods", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds")
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="key=value for all runs, e.g. trainer.max_steps=20")
    given = parser.parse_args()
    table = [row(name, [run(name, seed, given.output, given.set) for seed in given.seeds]) for name in given.methods]
    if given.json:
        print(json.dumps({"machine": machine(), "rows": table}, indent=2))
    else:
        print(f"{machine()}\n\n{show(table)}")
    return int(given.check and not all(r["ci_low"] > 0 and r["cpu_s"] <= BAR_S for r in table))


if __name__ == "__main__":
    sys.exit(main())
