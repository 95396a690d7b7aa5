"""One training: build data module and method from a config, and fit from the run's last checkpoint if there is one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig
from pytorch_lightning.loggers.logger import Logger

from morphoclip import schema
from morphoclip.experiment.checks import check_channels
from morphoclip.experiment.first_screen import FirstScreen
from morphoclip.experiment.plain import as_dict

if TYPE_CHECKING:
    from morphoclip.data import CellDataModule, PerturbationTable, ShardDataset
    from morphoclip.methods.base import Method
    from morphoclip.methods.clip import CLIP
    from morphoclip.methods.held_out_prompts import HeldOutPrompts
    from morphoclip.models import Encoder, FeatureEncoder
    from morphoclip.training.freezing import Freezing
    from morphoclip.training.interrupts import Interrupts


def fit(
    config: DictConfig, checkpoint: Path | None = None, interrupts: Interrupts | None = None
) -> tuple[Method, CellDataModule]:
    """Train the method described by `config` in `config.folder`, from a checkpoint of the run if one is given.

    Raises:
        Interrupted: `interrupts` asked to end; a checkpoint was saved at the end of the step.
        OSError: the last checkpoint could not be saved.
    """
    from morphoclip.checkpoints import LAST, read_checkpoint
    from morphoclip.distributed import rank
    from morphoclip.methods.clip import CLIP
    from morphoclip.methods.parameters import described, parameter_counts
    from morphoclip.training.checkpointing import Checkpoints, WholeCheckpoints
    from morphoclip.training.interrupts import seconds_of
    from morphoclip.training.pruning import pruning_of
    from morphoclip.training.timeouts import StallNote

    pl.seed_everything(config.seed, verbose=False)
    loader = open_loader(config)
    method, facts = starting_method(config, loader, checkpoint)
    if loader.val_split is not None and isinstance(method, CLIP):
        method.held_out = held_out_prompts(config, method, loader)
    if rank() == 0:
        print(
            "\n".join([described(parameter_counts(method)), *getattr(getattr(method, "conditions", None), "cuts", [])])
        )
    callbacks = [*callbacks_of(config), *pruning_of(config.folder)]
    savers = [callback for callback in callbacks if isinstance(callback, Checkpoints)]
    for saver in savers:
        saver.interrupts = interrupts
    io = WholeCheckpoints()
    stalls = StallNote(seconds_of(config.rank_timeout, "rank_timeout"), config.rank_timeout)
    trainer = make_trainer(
        config, loader, [FirstScreen(config), stalls, *callbacks], make_loggers(config, checkpoint), plugins=[io]
    )
    method.trained_on = provenance_of_training(config, method, loader) | facts
    with interrupts.deferred() if interrupts is not None and savers else nullcontext():
        trainer.fit(method, datamodule=loader, ckpt_path=checkpoint)
    if io.error is not None:
        raise io.error
    if interrupts is not None and interrupts.pending is not None:
        raise interrupts.pending
    if method.is_sharded:  # each rank has a part of the weights
        method = build_method(config, loader)
        whole = read_checkpoint(Path(config.folder) / "checkpoints" / LAST)
        method.load_state_dict(whole["state_dict"])
        method.on_load_checkpoint(whole)
    return method, loader


def open_loader(config: DictConfig) -> CellDataModule:
    """The data module of the run."""
    return hydra.utils.instantiate(config.data.loader)


def callbacks_of(config: DictConfig) -> list[pl.Callback]:
    """The callbacks of the config, without those set to null; early stopping judges what the others have measured."""
    from morphoclip.training.early_stopping import EarlyStopping

    made = [callback for callback in hydra.utils.instantiate(config.callbacks).values() if callback is not None]
    return sorted(made, key=lambda callback: isinstance(callback, EarlyStopping))


def make_trainer(
    config: DictConfig,
    loader: CellDataModule,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
    plugins: Sequence[Any] = (),
    **options: Any,
) -> pl.Trainer:
    """The trainer of the config, on the ranks that the launcher started."""
    from morphoclip.training.launch import cluster_environment, read_launch, trainer_nodes

    launch = read_launch()
    return hydra.utils.instantiate(
        config.trainer,
        num_nodes=trainer_nodes(launch, config.trainer.num_nodes),
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=config.folder,
        accumulate_grad_batches=loader.accumulate,
        plugins=[*plugins, cluster_environment(launch)],
        **options,
    )


def make_loggers(config: DictConfig, checkpoint: Path | None) -> list[Logger]:
    """The loggers; in a run that goes on they forget what was logged after the checkpoint."""
    from morphoclip.checkpoints import step_of
    from morphoclip.distributed import rank
    from morphoclip.training.curves import CSVCurves
    from morphoclip.training.loggers import WandbCurves

    step = None if checkpoint is None else step_of(checkpoint)
    made = []
    for spec in filter(None, (config.logger or {}).values()):
        purge = {"purge_step": 0 if step is None else step + 1} if spec._target_.endswith(".TensorBoardLogger") else {}
        made.append(hydra.utils.instantiate(spec, **purge))
        if isinstance(made[-1], CSVCurves) and rank() == 0:
            made[-1].cut(-1 if step is None else step)
        if isinstance(made[-1], WandbCurves):
            made[-1].go_on(step, as_dict(config))
    return made


def fit_turn(config: DictConfig, *, screen: bool = False) -> tuple[Encoder | FeatureEncoder, Method]:
    """(untrained encoder, trained method) of one turn of a rotation; nothing is saved. `screen` prints the first screen."""
    loader = open_loader(config)
    pl.seed_everything(config.seed, verbose=False)
    method, _ = starting_method(config, loader, None)
    untrained = copy.deepcopy(method.export_encoder())
    shown: list[pl.Callback] = [FirstScreen(config)] if screen else []
    make_trainer(config, loader, shown, [], enable_progress_bar=False).fit(method, datamodule=loader)
    method.trained_on = provenance_of_training(config, method, loader)
    return untrained, method


def starting_method(
    config: DictConfig, loader: CellDataModule, checkpoint: Path | None
) -> tuple[Method, dict[str, object]]:
    """The method with the weights that `init` names, and facts of them for provenance.

    A run that goes on from a checkpoint does not load them; the facts are then those of the checkpoint.
    """
    import torch

    from morphoclip.distributed import rank
    from morphoclip.experiment.arms import runs_own_code
    from morphoclip.methods.starting import start_from

    method = build_method(config, loader)
    method.freezing = freezing_of(config.freeze)
    if checkpoint is not None:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("trained_on", {})
        return method, {key: saved[key] for key in ("init",) if key in saved}
    init = as_dict(config.init)
    lines, facts = start_from(method, init.pop("from"), trust_remote_code=runs_own_code(config.encoder), **init)
    if lines and rank() == 0:
        print("\n".join(lines), flush=True)
    return method, {"init": facts} if facts else {}


def freezing_of(freeze: DictConfig) -> Freezing | None:
    """The callback that freezes what `freeze` names; None for nothing."""
    from morphoclip.training.freezing import Freezing

    if freeze.blocks is None:
        if freeze.steps is not None:
            raise ValueError("freeze.steps needs freeze=encoder, or a number of blocks in freeze.blocks")
        return None
    return Freezing(None if freeze.blocks == "all" else freeze.blocks, freeze.steps)


def build_method(config: DictConfig, loader: CellDataModule) -> Method:
    """The method, with pixel statistics of the training split and, for a text or molecule tower, its prompts."""
    from morphoclip.data.loading.features import PROFILE
    from morphoclip.models.features import FEATURE_ENCODERS

    dataset = loader.mixture.datasets[0]
    mean, std = dataset.channel_statistics()
    encoder = {**as_dict(config.encoder), "mean": mean.tolist(), "std": std.tolist()}
    if encoder["name"] in FEATURE_ENCODERS:
        count, size = dataset.shape[0], dataset.shape[-1]
        names = dataset.channels if len(dataset.channels) == count else [PROFILE]
        encoder |= {"channels": list(names), "feature_dim": int(size)}
    else:
        check_channels(
            encoder, {"channels": list(loader.channels)}
        )  # of buckets and mixtures too, which are open by now
    conditions: dict[str, Any] = {}
    if config.perturbation:
        table = described_conditions(config.data, loader.table)
        prompts = table.prompts(as_dict(config.perturbation))
        conditions = {
            "prompts": [prompt or None for prompt in prompts],
            "modalities": table.frame[schema.MODALITY].tolist(),
            "doses": table.frame[schema.DOSE].tolist(),
        }
    return hydra.utils.instantiate(config.method, encoder=encoder, **conditions)


def held_out_prompts(config: DictConfig, method: CLIP, loader: CellDataModule) -> HeldOutPrompts:
    """The prompts of the validation split, which the method never trains on."""
    from morphoclip.methods.held_out_prompts import HeldOutPrompts

    table = described_conditions(config.data, loader.val_mixture.table)
    prompts = table.prompts(as_dict(config.perturbation))
    modalities, doses = (table.frame[column].tolist() for column in (schema.MODALITY, schema.DOSE))
    return HeldOutPrompts(method.conditions, prompts, modalities, doses)


def described_conditions(data: DictConfig, table: PerturbationTable) -> PerturbationTable:
    """The conditions with the columns of the tables in `data.enrich` ({path, key, source, licence} each)."""
    from morphoclip.data.metadata.enrichment import enrich

    for source in data.get("enrich") or []:
        table = enrich(table, **source)
    return table


def provenance_of_training(config: DictConfig, method: Method, loader: CellDataModule) -> dict[str, object]:
    """Facts of the training for users of the encoder: data, commit, features, and annotations found in prompts.

    Of profile tables also the perturbations, so that scores of other tables can keep them apart.
    """
    from morphoclip.data.metadata.enrichment import annotations_in_prompts
    from morphoclip.evaluation.report.provenance import commit
    from morphoclip.export import training_data
    from morphoclip.export.provenance import counts_of
    from morphoclip.profiling.feature_embedding import features_of_training

    dataset = open_dataset(config, loader)
    known: dict[str, Any] = {**training_data(dataset), "git_commit": commit()}
    known["counts"] = counts_of(open_dataset(config, loader, loader.split))
    if "features" in dataset.manifest:
        known["features"] = features_of_training(loader.roots)
        if "names" in known["features"]:
            identity = [schema.PERTURBATION, schema.NAME, schema.INCHIKEY, schema.SMILES, schema.GENE]
            known["perturbations"] = loader.table.frame[identity].drop_duplicates().to_dict("list")
    if config.perturbation:
        table = described_conditions(config.data, loader.table)
        known["prompts_contain"] = annotations_in_prompts(table, method.hparams["prompts"])
    return known


def prompt_fields(config: DictConfig, trained_on: Mapping[str, Any]) -> list[str]:
    """Fields contained in the training prompts: those in the templates, and those found in the text of the prompts.

    A column of `data.enrich` that describes a target counts as `description`.
    """
    from morphoclip.data.metadata.enrichment import telling_columns

    templates = as_dict(config.perturbation).values() if config.perturbation else ()
    named = {name for template in templates for _, name, _, _ in Formatter().parse(template) if name}
    describing = {name for source in config.data.get("enrich") or [] for name in telling_columns(source["path"])}
    found = {*trained_on.get("prompts_contain", []), *(["description"] if named & describing else [])}
    return sorted(named | found)


def open_dataset(config: DictConfig, loader: CellDataModule, split: str | None = None) -> ShardDataset:
    """The samples of a split of the run's dataset, by default all, scaled as in training."""
    from morphoclip.data.loading.features import open_folder
    from morphoclip.experiment.prepare import dataset_folder

    return open_folder(dataset_folder(config.data), split, *loader.scaling)
