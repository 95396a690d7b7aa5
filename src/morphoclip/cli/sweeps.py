"""`morphoclip sweep`: an Optuna study over settings of the training config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from morphoclip.cli.app import app
from morphoclip.cli.errors import fail
from morphoclip.cli.hydra_app import main


class TrainInJob:
    """Trains within a job of submitit, on all its ranks; requeued near the time limit after a checkpoint."""

    def __call__(self, arguments: Sequence[str]) -> None:
        from morphoclip.experiment.sweeps.in_job import saving_before_requeue

        os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))
        with saving_before_requeue():
            main("train", arguments)

    def checkpoint(self, arguments: Sequence[str]) -> Any:
        """What the requeued job runs: the same, which goes on with the run."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, arguments)


@app.command()
def sweep(
    config: Annotated[str, typer.Argument(help="YAML file of the sweep, or a name in configs/sweep: clip")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="n_trials=40 …, and overrides for all trials: experiment=NAME key=value")
    ] = None,
) -> None:
    """Search for good settings with Optuna: each trial is a training, pruned if it is behind. The same command goes on."""
    from morphoclip import configs_dir
    from morphoclip.experiment.sweeps.settings import find_settings, read_settings
    from morphoclip.training.interrupts import Interrupted

    settings = read_settings(find_settings(config, configs_dir()), arguments or [])
    from morphoclip.experiment.sweeps.drive import run_sweep

    try:
        raise typer.Exit(run_sweep(settings, launcher_of(settings)))
    except Interrupted as stop:
        raise typer.Exit(stop.status) from None


def launcher_of(settings: Any) -> Any:
    """What starts the trials of a sweep: child processes, or Slurm jobs."""
    from morphoclip.experiment.sweeps.jobs import Jobs
    from morphoclip.experiment.sweeps.processes import Processes

    given = {key: value for key, value in settings.launcher.items() if key != "type"}
    if settings.launcher["type"] == "slurm":
        poll_s = float(given.pop("poll_s", 15.0))
        return Jobs(settings.folder, TrainInJob(), given, poll_s)
    if unknown := sorted(given.keys() - {"n_gpus"}):
        fail(ValueError(f"launcher.{unknown[0]}: a local launcher has n_gpus, the number of GPUs of a trial"))
    return Processes(settings.n_jobs, given.get("n_gpus"))
