"""Train one model and score it: `uv run train.py [experiment=…] [key=value …]`.

Without arguments this is the demo: it simulates a small Cell Painting screen, prepares shards, trains the image-text
model, embeds every well, scores compounds held out of training, and writes a report. Every key is in configs/.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter

# Threads that wait by spinning cost several times the work itself where cores are shared; set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hydra
import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from morphoclip import configs_dir
from morphoclip.data import schema

TRAINED, UNTRAINED = "trained", "untrained encoder"


@hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train")
def main(config: DictConfig) -> None:
    run(config)


def run(config: DictConfig) -> Path:
    """The whole experiment; returns the run's folder."""
    from morphoclip.training.launch import join, read_launch, trainer_devices
    from morphoclip.training.run_folder import run_folder

    launch = read_launch()
    config.trainer.devices = trainer_devices(launch, config.trainer.devices)
    config.trainer.num_nodes = launch.nodes
    config.data.loader.split = training_split(config.data)
    join(launch)
    config.folder = str(run_folder(config.output_dir, config.name, config.run_id))
    if launch.rank == 0:
        print(f"run folder {config.folder}")
    if config.get("rotation"):
        from morphoclip.rotation import run_rotation

        return run_rotation(config, Path(config.folder), fit_turn)
    if launch.rank == 0:
        prepare_data(config.data)
        OmegaConf.save(config, Path(config.folder) / "config.yaml", resolve=True)
    if launch.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
    method, loader = fit(config)
    if launch.rank == 0:
        finish(config, method, loader)
    return Path(config.folder)


def prepare_data(data: DictConfig) -> None:
    """Make what is not there yet: the simulated screen, its dataset, the split. Finished parts are reused."""
    from morphoclip.data import ShardDataset
    from morphoclip.data.prepare import prepare_dataset
    from morphoclip.data.simulation import simulate_screen
    from morphoclip.data.sources import read_load_data
    from morphoclip.data.splits import write_splits

    if "screen" in data:
        screen = simulate_screen(Path(data.folder) / "screen", hydra.utils.instantiate(data.screen))
        sources = read_load_data(str(screen / "workspace/load_data_csv/*/*/load_data.csv"))
        prepare_dataset(sources, data.root, metadata=screen / "workspace/metadata", **data.prepare)
    if "features" in data and not Path(data.features.folder).is_dir():
        prepare_features(data)
    if data.holdout is not None:
        tag = data.loader.split.removeprefix("train")
        for root in [data.root, data.features.folder] if "features" in data else [data.root]:
            dataset = ShardDataset(root)
            write_splits(dataset, held_out(dataset.fields, data) + tag)


def prepare_features(data: DictConfig) -> None:
    """Write the features of the dataset's crops by the frozen encoder that `data.features` names."""
    import torch

    from morphoclip.data import ShardDataset
    from morphoclip.models import create_encoder
    from morphoclip.profiling.features import write_features

    torch.manual_seed(0)
    dataset = ShardDataset(data.root)
    channels = {"in_channels": len(dataset.channels), "channels": list(dataset.channels)}
    encoder = {**channels, **OmegaConf.to_container(data.features.encoder, resolve=True)}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write_features(create_encoder(**encoder), dataset, data.features.folder, device=device)


def training_split(data: DictConfig) -> str | None:
    """Name of the split to train on: that of its holdout, so that runs with other holdouts keep to their own files."""
    if data.holdout is None:
        return data.loader.split
    return f"train-{hashlib.sha256(json.dumps(OmegaConf.to_container(data.holdout)).encode()).hexdigest()[:8]}"


def held_out(fields: pd.DataFrame, data: DictConfig) -> pd.Series:
    """'train' or 'heldout' a row of a field or profile table."""
    from morphoclip.data.splits import holdout

    return holdout(fields, **OmegaConf.to_container(data.holdout))


def fit(config: DictConfig):
    """Train, from the run's last checkpoint if there is one; (method, data module)."""
    import pytorch_lightning as pl

    from morphoclip.data.enrichment import told
    from morphoclip.evaluation.provenance import commit
    from morphoclip.methods.parameters import described, parameter_counts
    from morphoclip.profiling.export import training_data
    from morphoclip.training.run_folder import last_checkpoint

    pl.seed_everything(config.seed, verbose=False)
    loader = hydra.utils.instantiate(config.data.loader)
    method = build_method(config, loader)
    print(described(parameter_counts(method)))
    trainer = hydra.utils.instantiate(
        config.trainer,
        callbacks=list(hydra.utils.instantiate(config.callbacks).values()),
        logger=list(hydra.utils.instantiate(config.logger).values()),
        default_root_dir=config.folder,
    )
    checkpoint = last_checkpoint(Path(config.folder))
    if checkpoint:
        print(f"going on from {checkpoint}")
    method.trained_on = {**training_data(open_dataset(config, loader)), "git_commit": commit()}
    if config.perturbation:
        method.trained_on["prompts_tell"] = told(
            described_conditions(config.data, loader.table), method.hparams["prompts"]
        )
    trainer.fit(method, datamodule=loader, ckpt_path=checkpoint)
    if trainer.interrupted:
        again = " ".join([*sys.argv, f"run_id={Path(config.folder).name}"])
        sys.exit(f"\ninterrupted; go on from the last checkpoint with\n  uv run {again}")
    trainer.save_checkpoint(Path(config.folder) / "checkpoints" / "last.ckpt")
    return method, loader


def fit_turn(config: DictConfig, loader, watch):
    """The method trained on one turn of a rotation, without checkpoints; `watch` is shown the encoder before training."""
    import copy

    import pytorch_lightning as pl

    pl.seed_everything(config.seed, verbose=False)
    method = build_method(config, loader)
    watch(copy.deepcopy(method.export_encoder()))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    hydra.utils.instantiate(config.trainer, default_root_dir=config.folder, **quiet).fit(method, datamodule=loader)
    return method


def build_method(config: DictConfig, loader):
    """The method, on the statistics of the training split and, with a text or molecule tower, its prompts."""
    from morphoclip.data.features import PROFILE
    from morphoclip.models.features import FEATURE_ENCODERS

    dataset = loader.mixture.datasets[0]
    mean, std = dataset.channel_statistics()
    encoder = {**OmegaConf.to_container(config.encoder, resolve=True), "mean": mean.tolist(), "std": std.tolist()}
    if encoder["name"] in FEATURE_ENCODERS:
        count, size = dataset.shape
        names = dataset.channels if len(dataset.channels) == count else [PROFILE]
        encoder |= {"channels": list(names), "feature_dim": int(size)}
    words = {}
    if config.perturbation:
        table = described_conditions(config.data, loader.table)
        prompts = table.prompts(OmegaConf.to_container(config.perturbation))
        words = {
            "prompts": [prompt or None for prompt in prompts],
            "modalities": table.frame[schema.MODALITY].tolist(),
            "doses": table.frame[schema.DOSE].tolist(),
        }
    return hydra.utils.instantiate(config.method, encoder=encoder, **words)


def described_conditions(data: DictConfig, table):
    """The conditions with what the tables of `data.enrich` ({path, key, source, licence} each) say of them."""
    from morphoclip.data.enrichment import enrich

    for more in data.get("enrich") or []:
        table = enrich(table, **more)
    return table


def finish(config: DictConfig, method, loader) -> None:
    """Export the encoder; score it beside what the config names; print the table and the path of the report."""
    import shutil

    from morphoclip.profiling import export_encoder, load_encoder

    folder, dataset = Path(config.folder), open_dataset(config, loader)
    shutil.rmtree(folder / "encoder", ignore_errors=True)  # of an earlier, shorter start of this run
    export_encoder(method, folder / "encoder", trained_on=method.trained_on)
    if not config.score.tasks:
        print(f"encoder: {folder / 'encoder'}")
        return
    encoders = {
        **{name: hydra.utils.instantiate(spec) for name, spec in config.score.encoders.items()},
        UNTRAINED: untrained(config, method, loader),
        TRAINED: load_encoder(folder / "encoder"),
    }
    tables = profiles(encoders, dataset, folder / "profiles")
    if config.score.truth is not None:
        tables["true phenotype (ceiling)"] = true_profiles(config.score.truth, tables[TRAINED])
    scored = {name: score_held_out(config, table) for name, table in tables.items()}
    cards = {name: card for name, (card, _) in scored.items()}
    cards[TRAINED] = with_leaks(config, cards[TRAINED], tables[TRAINED], method.trained_on.get("prompts_tell", []))
    cards[TRAINED].write(folder)
    report = run_report(config, cards, tables[TRAINED], scored[TRAINED][1], dataset)
    print_scores(cards)
    print(f"report: {report}")


def open_dataset(config: DictConfig, loader):
    """Every crop of the run's dataset, scaled as in training."""
    from morphoclip.data import ShardDataset

    return ShardDataset(config.data.root, None, *loader.scaling)


def untrained(config: DictConfig, method, loader, crops: int = 1024):
    """The trained encoder's architecture with fresh weights.

    Its batch normalisations get the statistics of training crops, as the trained one has: a baseline that lacked them
    would make training look better than it is.
    """
    import torch

    from morphoclip.models import create_encoder

    torch.manual_seed(config.seed)
    encoder = create_encoder(**method.export_encoder().config).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average over the batches
    dataset = loader.mixture.datasets[0]
    chosen = np.random.default_rng(config.seed).permutation(len(dataset))[:crops]
    with torch.no_grad():
        for part in np.array_split(chosen, max(1, len(chosen) // 128)):
            pixels, (low, high) = dataset.read(part), dataset.intensities(part)
            encoder(encoder.preprocess(*map(torch.from_numpy, (pixels, low, high))))
    return encoder.eval()


def profiles(encoders: Mapping, dataset, folder: Path) -> dict[str, pd.DataFrame]:
    """Well profiles by each encoder, kept in `folder` as Parquet."""
    import torch

    from morphoclip.profiling import embed, write_profiles
    from morphoclip.profiling.export import encoder_provenance

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tables = {}
    for name, encoder in encoders.items():
        print(f"profiles by {name}")
        tables[name] = embed(encoder, dataset, device=device, batch_size=128)
        write_profiles(tables[name], folder / f"{name.replace(' ', '_')}.parquet", encoder_provenance(encoder))
    return tables


def true_profiles(path: str, like: pd.DataFrame) -> pd.DataFrame:
    """The planted phenotype of a simulated screen as profiles of the wells of `like`; wells without a cell have none."""

    metadata, _ = schema.split_columns(like)
    truth = pd.read_parquet(path)
    axes = schema.split_columns(truth)[1]
    place = [schema.PLATE, schema.WELL]
    return like[metadata].merge(truth[place + axes], on=place, validate="one_to_one").dropna(subset=axes)


def score_held_out(config: DictConfig, table: pd.DataFrame):
    """(score card of the held-out wells, their normalised profiles).

    Statistics come from training wells; a plate that training never saw is centred on its own controls.
    """
    from morphoclip.evaluation import score
    from morphoclip.profiling import crossfit

    normalizer = hydra.utils.instantiate(config.normalize)
    trained_on, asked = training_wells(config, table), scored_wells(config, table)
    if config.score.crossfit:
        folds = crossfit(normalizer, table, seed=config.score.seed, rows=trained_on)
    else:
        folds = [normalizer.fit(table, trained_on).transform(table)]
    folds = [fold[asked[fold.index]] for fold in folds]
    options = {key: config.score[key] for key in ("tasks", "p_convention", "null_size", "seed")}
    return score(folds, protocol=hydra.utils.instantiate(config.protocol), **options), folds[0]


def training_wells(config: DictConfig, table: pd.DataFrame) -> np.ndarray:
    """bool a row: wells training saw; all where nothing is held out."""
    if config.data.holdout is None:
        return np.ones(len(table), bool)
    return (held_out(table, config.data) == "train").to_numpy()


def scored_wells(config: DictConfig, table: pd.DataFrame) -> pd.Series:
    """bool a row: unseen plates with their controls and reagents, but of the compounds only those never trained on."""

    if config.data.holdout is None:
        return pd.Series(True, index=table.index)
    unseen_plate = table[schema.BATCH].isin(list(config.data.holdout.batches))
    seen = table.loc[training_wells(config, table), schema.PERTURBATION]
    of_compound = (table[schema.MODALITY] == "compound") & (table[schema.CONTROL_TYPE] != schema.NEGCON)
    return unseen_plate & ~(of_compound & table[schema.PERTURBATION].isin(seen))


def with_leaks(config: DictConfig, card, table: pd.DataFrame, tells: Sequence[str] = ()):
    """The card with each row marked clean, seen in training, or leaked by a training prompt (EVALUATION §3).

    A prompt leaks what its template asks for, and what its words give away (`tells`).
    """
    from morphoclip.evaluation.leaks import mark_leaks

    if config.data.holdout is None:
        return card
    seen = table.loc[training_wells(config, table), schema.PERTURBATION]
    templates = OmegaConf.to_container(config.perturbation).values() if config.perturbation else ()
    fields = {name for template in templates for _, name, _, _ in Formatter().parse(template) if name}
    return mark_leaks(card, set(seen), sorted(fields | set(tells)))


def run_report(config: DictConfig, cards: Mapping, table: pd.DataFrame, wells: pd.DataFrame, dataset) -> Path:
    """Write report.html: all rows on the same wells, paired differences, pictures, provenance.

    `table` holds the trained encoder's profiles as they are, `wells` those scored, normalised.
    """
    from morphoclip.evaluation import compare, write_report
    from morphoclip.evaluation.batch_effects import batch_scores_by_step
    from morphoclip.evaluation.heat_maps import consensus_heat_maps
    from morphoclip.evaluation.nearest import galleries, nearest_wells
    from morphoclip.evaluation.provenance import environment
    from morphoclip.evaluation.report import umap_coordinates
    from morphoclip.profiling.contact_sheet import well_pictures

    protocol = hydra.utils.instantiate(config.protocol)
    normalizer = hydra.utils.instantiate(config.normalize)
    near = nearest_wells(wells, cards[TRAINED].tables["replicate"], protocol)
    tasks = [task for task in ("sister", "compound_gene") if f"{task}_ungated" in cards[TRAINED].tables]
    for name in [name for name in cards if name != TRAINED and tasks]:
        difference = compare([cards[TRAINED]], [cards[name]], tasks)
        cards[TRAINED].notes.append(f"trained − {name}, mean mAP of {' and '.join(tasks)}: {difference}")
    return write_report(
        Path(config.folder) / "report.html",
        cards,
        title=f"{config.name}: {config.method._target_.rsplit('.', 1)[-1]} on {Path(config.data.root).parent.name}",
        main=TRAINED,
        lede=config.score.lede,
        umap=umap_coordinates(wells, config.score.seed),
        contact_sheet=pictures(cards[TRAINED], wells, dataset, config.score.contact_sheet),
        galleries=galleries(wells, near, lambda rows: well_pictures(dataset, rows)),
        heat_maps=consensus_heat_maps(wells, protocol),
        batch_steps=batch_scores_by_step(table, protocol, normalizer.after_each_step, config.score.seed),
        provenance={
            "command": " ".join(["train.py", *sys.argv[1:]]),
            **environment(),
            "configuration": OmegaConf.to_yaml(config, resolve=True),
        },
    )


def pictures(card, wells: pd.DataFrame, dataset, count: int) -> list[tuple[str, np.ndarray]]:
    """Crops of a control and of the perturbations whose replicates find each other best, on one plate and in one contrast."""
    from morphoclip.profiling.contact_sheet import contact_sheet

    found = card.tables["replicate"].sort_values("mean_average_precision", ascending=False)
    best = wells[wells[schema.PERTURBATION].isin(found[schema.PERTURBATION].head(count))]
    best = best[best[schema.PLATE] == best[schema.PLATE].mode()[0]].drop_duplicates(schema.PERTURBATION)
    control = wells[(wells[schema.PLATE].isin(best[schema.PLATE])) & (wells[schema.CONTROL_TYPE] == schema.NEGCON)]
    shown = pd.concat([control.head(1), best])
    with_crops = dataset.fields.reset_index().iloc[np.unique(dataset.index["field"])]
    fields = with_crops.merge(shown[[schema.PLATE, schema.WELL]].assign(order=range(len(shown))))
    first = fields.sort_values(["order", schema.SITE]).drop_duplicates("order")["index"]
    names = shown[schema.NAME].where(shown[schema.NAME] != "", shown[schema.GENE])
    captions = names.where(shown[schema.CONTROL_TYPE] != schema.NEGCON, "negative control") + " " + shown[schema.WELL]
    return list(zip(captions, contact_sheet(dataset, first.tolist()), strict=True))


def print_scores(cards: Mapping) -> None:
    """The score table: a line a row of the report, mean AP [95 % interval] a task."""
    from rich.console import Console
    from rich.table import Table

    reference = next(iter(cards.values())).metrics
    tasks = list(dict.fromkeys(reference["task"]))
    table = Table("mean average precision", *tasks, title="held-out wells, 95 % intervals")
    lines = {name: [shown_score(card, task) for task in tasks] for name, card in cards.items()}
    chance = [f"{shown_row(cards[TRAINED], task)['chance']:.3f}" for task in tasks]
    for name, cells in {"chance": chance, **lines}.items():
        table.add_row(name, *cells, style="bold" if name == TRAINED else None)
    Console().print(table)


def shown_row(card, task: str) -> pd.Series:
    """The metrics row shown for a task: over all perturbations, not only those retrieved."""
    rows = card.metrics[(card.metrics["task"] == task) & (card.metrics["subset"] == "all")].set_index("metric")
    ungated = "mean_average_precision_ungated"
    return rows.loc[ungated if ungated in rows.index else "mean_average_precision"]


def shown_score(card, task: str) -> str:
    row = shown_row(card, task)
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}] n={int(row['n'])}"


if __name__ == "__main__":
    main()
