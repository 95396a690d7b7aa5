"""Train on some plates without some compounds, score those compounds on the plate left out, and turn (EVALUATION §3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip import configs_dir, schema
from morphoclip.evaluation.tasks.leaks import split_keys
from morphoclip.evaluation.tasks.questions import REPLICATE, SISTER
from morphoclip.evaluation.tasks.unseen import SHUFFLED, WELL, Rotation, rotations, unseen_replicates, unseen_table
from morphoclip.evaluation.tasks.unseen_controls import POSITION, same_position_dmso, unseen_sisters

Fit = Callable[..., object]
TABLES = {REPLICATE: "unseen.csv", SISTER: "unseen_sister.csv"}
CONTROLS = {None: "", 0: SHUFFLED}  # seed of the shuffle: how the arm's name ends


def read_wells(data: DictConfig) -> pd.DataFrame:
    """The profile tables of `data.profiles` with the annotations of `data.metadata`."""
    from morphoclip.data.metadata.annotations import annotate
    from morphoclip.profiling import read_profiles

    return annotate(read_profiles(data.profiles), data.metadata)


def run_rotation(config: DictConfig, folder: Path, fit: Fit) -> Path:
    """Train a model for each seed, plate and share of compounds; write and print the tables of scores.

    A finished rotation is kept as Parquet in `folder` and not trained again. Models and raw profiles are scored by the
    same code on the same wells, centred and cross-fitted alike.

    Args:
        fit: (config, data module, a function shown the untrained encoder) -> trained method.

    Returns:
        `folder`/unseen.csv.
    """
    wells = read_wells(config.data)
    keys = split_keys(wells, config.rotation.by)
    turns = rotations(wells, keys, config.rotation.folds, config.rotation.seed)
    print(f"{len(config.rotation.seeds) * len(turns)} trainings; writes {', '.join(TABLES.values())} to {folder}")
    found = []
    for preset in config.rotation.baselines:
        tables = normalized(wells, configs_dir() / "normalize" / f"{preset}.yaml", config.rotation.seed)
        found += [
            turn_scores(tables, wells, turn, f"{config.rotation.given}, {preset}").assign(seed=0) for turn in turns
        ]
    for seed in config.rotation.seeds:
        found += [rotation_scores(config, folder, fit, wells, turn, seed).assign(seed=seed) for turn in turns]
    rows = pd.concat(found, ignore_index=True)
    rows = rows.drop_duplicates(["arm", "task", "seed", *WELL, schema.PERTURBATION, "fold"])  # structure alone, once
    rows.to_csv(folder / "unseen_queries.csv", index=False, float_format="%.6g")
    for task, name in TABLES.items():
        arms = {
            arm: [of_seed for _, of_seed in of_arm.groupby("seed")]
            for arm, of_arm in rows[rows["task"] == task].groupby("arm", sort=False)
        }
        if config.name in arms:
            table = unseen_table(arms, wells, keys)
            table.to_csv(folder / name, index=False, float_format="%.6g")
            print_table(table, config.name, task)
    return folder / TABLES[REPLICATE]


def turn_scores(tables: list[pd.DataFrame], wells: pd.DataFrame, turn: Rotation, arm: str) -> pd.DataFrame:
    """APs of one turn's queries by profiles named `arm`, and of the controls beside them: a row a query, arm and task."""
    replicates = [
        unseen_replicates(tables, wells, turn, shuffle=shuffle).assign(arm=arm + ending)
        for shuffle, ending in CONTROLS.items()
    ]
    position = same_position_dmso(tables, wells, turn).assign(arm=arm + POSITION)
    sisters = unseen_sisters(tables, wells, turn, arm).assign(task=SISTER)
    return pd.concat([pd.concat([*replicates, position]).assign(task=REPLICATE), sisters]).assign(fold=turn.fold)


def rotation_scores(
    config: DictConfig, folder: Path, fit: Fit, wells: pd.DataFrame, turn: Rotation, seed: int
) -> pd.DataFrame:
    """`turn_scores` by the trained encoder and by the same one untrained; from disk where they are there."""
    from morphoclip.data.loading.features import TableDataModule, TableDataset
    from morphoclip.profiling.features import embed_features

    path = folder / "rotations" / f"{turn.plate}-{turn.fold}-{seed}.parquet"
    if path.is_file():
        return pd.read_parquet(path)
    turned = OmegaConf.merge(config, {"seed": seed, "folder": str(path.with_suffix(""))})
    options = {
        k: v for k, v in OmegaConf.to_container(turned.data.loader, resolve=True).items() if not k.startswith("_")
    }
    loader = TableDataModule(wells[turn.training], **options)
    encoders = {}
    method = fit(turned, loader, lambda untrained: encoders.update(untrained=untrained))
    encoders[config.name] = method.export_encoder()
    parts = []
    for arm, encoder in encoders.items():
        profiles = embed_features(encoder, TableDataset(wells, loader.mixture.datasets[0].names))
        tables = normalized(profiles, config.normalize, config.rotation.seed)
        parts.append(turn_scores(tables, wells, turn, arm))
    scores = pd.concat(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(path, index=False)
    mean = scores[scores["task"] == REPLICATE].groupby("arm")["average_precision"].mean().round(3).to_dict()
    print(f"plate {turn.plate}, share {turn.fold}, seed {seed}: {mean}", flush=True)
    return scores


def normalized(table: pd.DataFrame, normalizer: Path | DictConfig, seed: int) -> list[pd.DataFrame]:
    """The table normalised on one half of the controls and scored against the other, both ways round.

    Tables without a fitted step are halved alike: fewer negatives make a higher score, for every arm the same.
    """
    from morphoclip.profiling import crossfit, negcon_folds

    made = instantiate(OmegaConf.load(normalizer) if isinstance(normalizer, Path) else normalizer)
    tables = crossfit(made, table, seed=seed)
    if len(tables) == 2:
        return tables
    fold = negcon_folds(tables[0], seed)
    control = (tables[0][schema.CONTROL_TYPE] == schema.NEGCON).to_numpy()
    return [tables[0][~control | (fold == half)] for half in (0, 1)]


def print_table(table: pd.DataFrame, name: str, task: str) -> None:
    from rich.console import Console
    from rich.table import Table

    title = "unseen compounds on an unseen plate" + (", exploratory" if task == SISTER else "")
    shown = Table(title, f"{task} mAP [95 %]", "chance", f"{name} − this [95 %]", "n", "seeds")
    ours = table.set_index("arm").loc[name]
    for row in table.to_dict("records"):
        arm = row["arm"]
        difference = [] if arm == name else [ours[f"minus {arm}{end}"] for end in ("", " low", " high")]
        gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference) if pd.notna(difference).any() else ""
        score = f"{row['mean_average_precision']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        shown.add_row(arm, score, f"{row['chance']:.3f}", gain, str(row["n_compounds"]), str(row["n_seeds"]))
    Console(width=130).print(shown)
