"""What training brings on the demo's held-out compounds, arm by arm: `python -m benchmarks.demo [--check] [--set key=value …]`.

Each arm is trained with several seeds and compared with its own untrained encoders on common rows: mean AP over the
sister and compound_gene tasks, ungated, paired; the interval resamples seeds and clusters of compounds. A finished
(arm, seed) is kept in the output folder and not trained again, so arms can also be run by several processes
(`--arms 1 --seeds 0`), and a last call without training prints the table. Results of another configuration are never
reused: their folder carries a hash of it. `--check` exits 1 unless the whole method
gains at least .10 with an interval that excludes 0, beats intensity statistics, and its untrained encoder beats chance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip import configs_dir
from morphoclip.evaluation import ScoreCard, compare
from morphoclip.experiment.arms import true_profiles, untrained_encoder, write_profiles_of
from morphoclip.experiment.design import holdout_design
from morphoclip.experiment.fit import fit, open_dataset
from morphoclip.experiment.prepare import holdout_of, prepare_data, training_split
from morphoclip.experiment.report import shown_row
from morphoclip.experiment.score import score_tables
from morphoclip.files import write_atomically

TASKS = ("sister", "compound_gene")
BAR = 0.10
SIMCLR = [
    "method=simclr",
    "perturbation=none",
    "data.loader.sampler=uniform",
    "data.loader.sampler_options=null",
    "data.loader.global_batch_size=48",
]
ARMS: dict[str, list[str]] = {
    "labels-free (SimCLR)": SIMCLR,
    "CLIP only": [],
    "CLIP + image term": ["method.image_loss.weight=0.5"],
    "CLIP only, scrambled layout": ["data.screen.layout=scrambled"],
}
WHOLE = "CLIP only"  # the demo's recipe


def arm_config(arm: str, seed: int, output: Path, overrides: list[str]) -> DictConfig:
    """The arm's configuration, its folder named by arm, seed and a hash of everything in it."""
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"output_dir={output}", f"seed={seed}", *ARMS[arm], *overrides])
    content = OmegaConf.to_yaml(config, resolve=True)
    config.run_id = f"{list(ARMS).index(arm)}-{seed}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    config.folder = str(output / config.name / config.run_id)
    return config


def run_arm(arm: str, seed: int, output: Path, overrides: list[str]) -> dict:
    """{'trained': card, 'untrained': card, 'cpu_s': …}; kept, and read again where it exists."""
    config = arm_config(arm, seed, output, overrides)
    kept = Path(config.folder) / "cards.pickle"
    if kept.is_file():
        return pickle.loads(kept.read_bytes())
    Path(config.folder).mkdir(parents=True, exist_ok=True)
    prepare_data(config.data)
    config.data.loader.split = training_split(config.data, Path(config.folder))
    start = time.process_time()
    method, loader = fit(config)
    cpu_s = time.process_time() - start
    encoders = {
        "untrained": untrained_encoder(method.export_encoder(), loader, config.seed),
        "trained": method.export_encoder().eval(),
    }
    tables = write_profiles_of(encoders, open_dataset(config, loader), None, Path(config.folder))
    found = score_cards(config, tables) | {"cpu_s": cpu_s}
    with write_atomically(kept) as partial:
        partial.write_bytes(pickle.dumps(found))
    return found


def run_references(output: Path, overrides: list[str]) -> dict[str, ScoreCard]:
    """Score cards of the fixed extractors and the planted truth on the fixed layout."""
    config = arm_config(WHOLE, 0, output, overrides)
    kept = Path(config.folder) / "references.pickle"
    if kept.is_file():
        return pickle.loads(kept.read_bytes())
    prepare_data(config.data)
    encoders = {name: instantiate(spec) for name, spec in config.score.encoders.items()}
    dataset = open_dataset(config, instantiate(config.data.loader))
    tables = write_profiles_of(encoders, dataset, None, kept.parent / "references")
    tables["true phenotype (ceiling)"] = true_profiles(config.score.truth, next(iter(tables.values())))
    cards = score_cards(config, tables)
    kept.write_bytes(pickle.dumps(cards))
    return cards


def score_cards(config: DictConfig, tables: dict[str, pd.DataFrame]) -> dict[str, ScoreCard]:
    """Arm -> score card of the held-out wells."""
    design = holdout_design(next(iter(tables.values())), holdout_of(config.data), ())
    return {name: found.card for name, found in score_tables(config, tables, design).items()}


def mean_score(cards: list[ScoreCard]) -> dict[str, float]:
    scores = {task: sum(float(shown_row(c, task)["value"]) for c in cards) / len(cards) for task in TASKS}
    scores["replicate"] = sum(float(shown_row(c, "replicate")["value"]) for c in cards) / len(cards)
    scores["mean"] = sum(scores[task] for task in TASKS) / len(TASKS)
    return scores


def rows(found: dict[str, list[dict]], references: dict[str, ScoreCard]) -> list[dict]:
    """The table: a row a reference and an arm."""
    some = next(iter(references.values()))
    chance = {task: float(shown_row(some, task)["chance"]) for task in (*TASKS, "replicate")}
    table = [{"row": "chance", **chance, "mean": sum(chance[t] for t in TASKS) / len(TASKS)}]
    table += [{"row": name, **mean_score([card])} for name, card in references.items()]
    for arm, runs in found.items():
        trained, untrained = [r["trained"] for r in runs], [r["untrained"] for r in runs]
        gain = compare(trained, untrained, TASKS)
        table.append({"row": f"untrained: {arm}", **mean_score(untrained)})
        table.append(
            {
                "row": arm,
                **mean_score(trained),
                "gain": gain.value,
                "ci_low": gain.ci_low,
                "ci_high": gain.ci_high,
                "seeds": len(runs),
                "train_cpu_s": sum(r["cpu_s"] for r in runs) / len(runs),
            }
        )
    return table


def show(table: list[dict]) -> str:
    lines = [
        "| row | sister | compound–gene | mean | replicate | gain over untrained [95 %] | seeds | training CPU-s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        gain = f"{row['gain']:+.3f} [{row['ci_low']:+.3f}, {row['ci_high']:+.3f}]" if "gain" in row else ""
        scores = " | ".join(f"{row[key]:.3f}" for key in ("sister", "compound_gene", "mean", "replicate"))
        seeds, cpu = row.get("seeds", ""), f"{row['train_cpu_s']:.0f}" if "train_cpu_s" in row else ""
        lines.append(f"| {row['row']} | {scores} | {gain} | {seeds} | {cpu} |")
    return "\n".join(lines)


def machine() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "morphoclip"))
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch threads {torch.get_num_threads()}; {versions}"


def passes(table: list[dict]) -> bool:
    by_name = {row["row"]: row for row in table}
    whole, untrained = by_name[WHOLE], by_name[f"untrained: {WHOLE}"]
    return (
        whole["gain"] >= BAR
        and whole["ci_low"] > 0
        and untrained["mean"] > by_name["chance"]["mean"]
        and whole["mean"] > by_name["intensity statistics"]["mean"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="training seeds")
    parser.add_argument("--arms", type=int, nargs="+", default=list(range(len(ARMS))), help=f"of {list(ARMS)}")
    parser.add_argument("--check", action="store_true", help="exit 1 where the bar is missed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="key=value for all arms, e.g. data.screen.seed=2026")
    given = parser.parse_args()
    arms = [list(ARMS)[i] for i in given.arms]
    if given.check and WHOLE not in arms:
        parser.error(f"--check judges the arm {WHOLE!r}: leave it among --arms")
    found = {arm: [run_arm(arm, seed, given.output, given.set) for seed in given.seeds] for arm in arms}
    table = rows(found, run_references(given.output, given.set))
    print(
        json.dumps({"machine": machine(), "rows": table}, indent=2) if given.json else f"{machine()}\n\n{show(table)}"
    )
    return int(given.check and not passes(table))


if __name__ == "__main__":
    sys.exit(main())
