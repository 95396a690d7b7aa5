"""Train one model and score it: `uv run train.py [experiment=…] [key=value …]`.

Without arguments this is the demo: it simulates a small Cell Painting screen, prepares shards, trains the image-text
model, embeds every well, scores compounds held out of training, and writes a report. Every key is in configs/.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

# Threads that wait by spinning cost several times the work itself where cores are shared; set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hydra
from omegaconf import DictConfig, OmegaConf

from morphoclip import configs_dir, schema


@hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train")
def main(config: DictConfig) -> None:
    run(config)


def run(config: DictConfig) -> Path:
    """The whole experiment; returns the run's folder."""
    from morphoclip.training.launch import join, read_launch, trainer_devices, trainer_precision
    from morphoclip.training.run_folder import run_folder

    launch = read_launch()
    config.trainer.devices = trainer_devices(launch, config.trainer.devices)
    config.trainer.num_nodes = launch.nodes
    config.trainer.precision = trainer_precision(config.trainer.precision, config.trainer.accelerator)
    config.data.loader.split = training_split(config.data)
    join(launch)
    config.folder = str(run_folder(config.output_dir, config.name, config.run_id))
    if launch.rank == 0:
        print(f"run folder {config.folder}")
        prepare_data(config.data)
        OmegaConf.save(config, Path(config.folder) / "config.yaml", resolve=True)
    if launch.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
    if config.get("rotation"):
        from morphoclip.experiment.rotation import run_rotation

        return run_rotation(config, Path(config.folder), fit_turn)
    method, loader = fit(config)
    if launch.rank == 0:
        finish(config, method, loader)
    return Path(config.folder)


def prepare_data(data: DictConfig) -> None:
    """Make what is not there yet: the simulated screen, its dataset, the split. Finished parts are reused."""
    from morphoclip.data import ShardDataset
    from morphoclip.data.shards.split_files import write_splits
    from morphoclip.experiment.run_scores import held_out
    from morphoclip.preparation.prepare import prepare_dataset
    from morphoclip.preparation.sources import read_load_data
    from morphoclip.simulation import simulate_screen

    if "screen" in data:
        screen = simulate_screen(Path(data.folder) / "screen", hydra.utils.instantiate(data.screen))
        sources = read_load_data(str(screen / "workspace/load_data_csv/*/*/load_data.csv"))
        prepare_dataset(sources, data.root, metadata=screen / "workspace/metadata", **data.prepare)
    if "features" in data and not Path(data.features.folder).is_dir():
        prepare_features(data)
    if "screen" in data and "profiles" in data and not Path(data.profiles).is_file():
        prepare_profiles(data)
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


def prepare_profiles(data: DictConfig) -> None:
    """Write the wells' profiles by classical image features, as CellProfiler's would come."""
    from morphoclip.data import ShardDataset
    from morphoclip.models.classical import ClassicalFeatures
    from morphoclip.profiling import embed, write_profiles

    wells = embed(ClassicalFeatures(), ShardDataset(data.root))
    kept = [schema.PLATE, schema.WELL, *schema.split_columns(wells)[1]]
    write_profiles(wells[kept], data.profiles, {"encoder": "classical"})


def training_split(data: DictConfig) -> str | None:
    """Name of the split to train on: that of its holdout, so that runs with other holdouts keep to their own files."""
    if data.holdout is None:
        return data.loader.split
    return f"train-{hashlib.sha256(json.dumps(OmegaConf.to_container(data.holdout)).encode()).hexdigest()[:8]}"


def fit(config: DictConfig):
    """Train, from the run's last checkpoint if there is one; (method, data module)."""
    import pytorch_lightning as pl

    from morphoclip.data.loading.features import FeatureDataModule
    from morphoclip.data.metadata.enrichment import told
    from morphoclip.evaluation.report.provenance import commit
    from morphoclip.export.provenance import training_data
    from morphoclip.methods.parameters import described, parameter_counts
    from morphoclip.profiling.features import features_of_training
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
    if isinstance(loader, FeatureDataModule):
        method.trained_on["features"] = features_of_training(loader.roots)
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
    from morphoclip.data.loading.features import PROFILE
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
    from morphoclip.data.metadata.enrichment import enrich

    for more in data.get("enrich") or []:
        table = enrich(table, **more)
    return table


def finish(config: DictConfig, method, loader) -> None:
    """Export the encoder; score it beside what the config names; print the table and the path of the report."""
    import shutil
    from functools import partial

    from morphoclip.experiment import run_scores
    from morphoclip.experiment.run_report import print_scores, run_report
    from morphoclip.experiment.run_scores import TRAINED, UNTRAINED
    from morphoclip.export.crop_pool import attends
    from morphoclip.profiling import export_encoder, load_encoder
    from morphoclip.profiling.crop_attention import crop_attention

    folder = Path(config.folder)
    shutil.rmtree(folder / "encoder", ignore_errors=True)  # of an earlier, shorter start of this run
    export_encoder(method, folder / "encoder", trained_on=method.trained_on)
    if not config.score.tasks:
        print(f"encoder: {folder / 'encoder'}")
        return
    images = run_scores.image_dataset(open_dataset(config, loader))
    fixed = {} if images is None else dict(config.score.encoders or {})
    encoders = {
        **{name: hydra.utils.instantiate(spec, channels=list(images.channels)) for name, spec in fixed.items()},
        UNTRAINED: run_scores.untrained(config, method, loader),
        TRAINED: load_encoder(folder / "encoder", trust_remote_code=config.encoder.get("trust_remote_code", False)),
    }
    features = run_scores.feature_dataset(loader)
    tables = run_scores.profiles(encoders, images, folder / "profiles", features)
    if config.score.truth is not None:
        tables["true phenotype (ceiling)"] = run_scores.true_profiles(config.score.truth, tables[TRAINED])
    scored = {name: run_scores.score_held_out(config, table) for name, table in tables.items()}
    cards = {name: card for name, (card, _) in scored.items()}
    tells = method.trained_on.get("prompts_tell", [])
    cards[TRAINED] = run_scores.with_leaks(config, cards[TRAINED], tables[TRAINED], tells)
    cards[TRAINED].write(folder)
    pool, shown = getattr(method, "pool", None), features or images
    attention = partial(crop_attention, encoders[TRAINED], shown, pool) if attends(encoders[TRAINED], pool) else None
    report = run_report(config, cards, tables[TRAINED], scored[TRAINED][1], images, attention)
    print_scores(cards)
    print(f"report: {report}")


def open_dataset(config: DictConfig, loader):
    """Every crop of the run's dataset, scaled as in training."""
    from morphoclip.data import ShardDataset

    return ShardDataset(config.data.root, None, *loader.scaling)


if __name__ == "__main__":
    main()
