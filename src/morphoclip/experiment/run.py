"""One run: prepare ▶ fit ▶ encoder folder, profile tables, design. Scoring then reads only these files.

    run folder/
      run.json, config.yaml                what is recorded of the run (`runs`), and its config
      environment.json, code.diff          commit, packages and machine of every start (`environment`)
      checkpoints/, logs/                  of the training
      encoder/                             the exported encoder
      profiles/<arm>.parquet               well profiles by the trained encoder and by each baseline
      held_out.parquet (+ .json)           the roles of the wells and the list of arms: `design.Design`

`score_run` makes score cards and the report from these files, at the end of the run or later.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from morphoclip.experiment.arms import (
    CEILING,
    TRAINED,
    UNTRAINED,
    given_arms,
    image_dataset,
    runs_own_code,
    table_path,
    true_profiles,
    untrained_encoder,
    write_profiles_of,
)
from morphoclip.experiment.changes import flat
from morphoclip.experiment.checks import check_before_start
from morphoclip.experiment.design import holdout_design
from morphoclip.experiment.dry_run import data_folder, dry_run, dry_start
from morphoclip.experiment.environment import record_datasets, record_start
from morphoclip.experiment.first_screen import last_line
from morphoclip.experiment.fit import fit, open_dataset, prompt_fields
from morphoclip.experiment.prepare import choose_splits, holdout_of, prepare_data
from morphoclip.experiment.rotation import run_rotation
from morphoclip.experiment.runs import Start, open_run
from morphoclip.experiment.score_run import score_run
from morphoclip.files import write_atomically

if TYPE_CHECKING:
    from morphoclip.data import CellDataModule
    from morphoclip.methods.base import Method
    from morphoclip.training.interrupts import Interrupts


def run(config: DictConfig) -> Path:
    """Train the model described by `config` (configs/train.yaml, composed), then score it; returns the run folder.

    Under torchrun or srun every rank calls this; rank 0 prepares the data, exports and scores. Exits with the status of
    `Interrupted` when a signal or `max_time` ends the run, after saving a checkpoint.
    """
    from morphoclip.training.interrupts import Interrupted, Interrupts, seconds_of
    from morphoclip.training.launch import join, on_rank_zero, read_launch, set_launch
    from morphoclip.training.loggers import check_loggers, wandb_run_ended
    from morphoclip.training.timeouts import named_timeouts

    began = time.monotonic()
    config.name = str(config.name)  # YAML reads some names as numbers or dates
    config.run_id = None if config.run_id is None else str(config.run_id)
    composed = flat(config)
    check_loggers(config.logger)
    check_before_start(config)
    launch = read_launch()
    set_launch(config.trainer, launch)
    join(launch, timedelta(seconds=seconds_of(config.rank_timeout, "rank_timeout")))
    try:
        with Interrupts(config.max_time) as interrupts, ExitStack() as held, named_timeouts(config.rank_timeout):
            start = on_rank_zero(
                lambda: (
                    dry_start(config, composed, held)
                    if config.dry_run
                    else open_run(config, composed, launch.world_size, held)
                )
            )
            held.enter_context(wandb_run_ended())
            held.callback(interrupts.defer)  # srun sends SIGTERM when another rank has ended first
            if not start.finished:
                run_in(start, config, interrupts)
            if launch.rank == 0 and not config.dry_run and not start.finished:
                print(last_line(start.folder, time.monotonic() - began), flush=True)
            return start.folder
    except Interrupted as stop:
        sys.exit(stop.status)


def run_in(start: Start, config: DictConfig, interrupts: Interrupts) -> None:
    """Prepare, fit, profile and score in the folder of a run that was opened."""
    from morphoclip.distributed import rank
    from morphoclip.training.launch import on_rank_zero
    from morphoclip.training.loggers import log_scores

    folder = start.folder
    config.folder, config.run_id, config.resume = str(folder), folder.name, None
    if config.dry_run and "folder" in config.data:
        config.data.folder = on_rank_zero(lambda: data_folder(config.data, folder))
    split, val_split = on_rank_zero(lambda: prepare_run(config, folder))
    config.data.loader.split = split
    if val_split is not None:
        config.data.loader.val_split = val_split
    if config.dry_run:
        dry_run(config, start.checkpoint)
        return
    if config.get("rotation"):
        run_rotation(config, folder)
    else:
        method, loader = fit(config, start.checkpoint, interrupts)
        leave(config, method, loader)
    if rank() == 0 and config.score.tasks:
        score_run(folder)
        log_scores(folder / "metrics.csv")


def prepare_run(config: DictConfig, folder: Path) -> tuple[str | None, str | None]:
    """Prepare the data and write the run's config and splits; returns those to train and to validate on."""
    record_start(folder)
    print(f"data: {config.data.root}", flush=True)
    prepare_data(config.data)
    record_datasets(folder, config.data)
    split, val_split = choose_splits(config.data, folder)
    config.data.loader.split = split
    if val_split is not None:
        config.data.loader.val_split = val_split
    with write_atomically(folder / "config.yaml") as partial:
        OmegaConf.save(config, partial, resolve=True)
    return split, val_split


def leave(config: DictConfig, method: Method, loader: CellDataModule) -> None:
    """Write the results of a training: the encoder folder and, if the run is to be scored, its arms and its design.

    All ranks call it, and each embeds its plates.
    """
    from morphoclip.distributed import rank
    from morphoclip.profiling import export_encoder, load_encoder, write_profiles
    from morphoclip.training.launch import on_rank_zero

    folder = Path(config.folder)

    def export() -> None:
        shutil.rmtree(folder / "encoder", ignore_errors=True)  # from an earlier, shorter start of this run
        export_encoder(method, folder / "encoder", trained_on=method.trained_on)

    on_rank_zero(export)
    if not config.score.tasks:
        if rank() == 0:
            print(f"encoder: {folder / 'encoder'}")
        return
    trust = runs_own_code(config.encoder)
    dataset = open_dataset(config, loader)
    images = image_dataset(dataset)
    fixed = {} if images is None else dict(config.score.encoders or {})
    channels = [] if images is None else list(images.channels)
    encoders = {
        **{name: hydra.utils.instantiate(spec, channels=channels) for name, spec in fixed.items()},
        UNTRAINED: untrained_encoder(method.export_encoder(), loader, config.seed, trust=trust),
        TRAINED: load_encoder(folder / "encoder", trust_remote_code=trust),
    }
    tables = write_profiles_of(encoders, images, dataset, folder, loader.num_workers)
    if rank() > 0:
        return
    if config.score.truth is not None:
        tables[CEILING] = true_profiles(config.score.truth, tables[TRAINED])
        write_profiles(tables[CEILING], table_path(folder, CEILING), {"source": str(config.score.truth)})
    design = holdout_design(tables[TRAINED], holdout_of(config.data), prompt_fields(config, method.trained_on))
    design.write(folder, arms=list(tables), given=given_arms(config.score), main=TRAINED)
