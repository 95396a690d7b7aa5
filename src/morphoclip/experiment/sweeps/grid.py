"""Grids by Hydra's `-m`: a folder for all runs of a grid, what each run left, and the table of all."""

from __future__ import annotations

import atexit
import itertools
import json
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from morphoclip.experiment.runs import FAILED, FINISHED, INTERRUPTED, RUNNING, new_folder, read_record
from morphoclip.experiment.sweeps.grid_folder import GRID, folder_in_grid
from morphoclip.experiment.sweeps.in_job import saving_before_requeue
from morphoclip.experiment.sweeps.objective import shown_values
from morphoclip.experiment.sweeps.page import default_objectives, write_page
from morphoclip.experiment.sweeps.study_table import seconds_of
from morphoclip.experiment.sweeps.table import PENDING, Row, SweepTable, write_table
from morphoclip.files import write_atomically
from morphoclip.training.interrupts import TIME_LIMIT
from morphoclip.training.launch import read_job, read_launch, slurm_job

RUN_OF_GRID = "grid.json"  # in a run's folder: its number, overrides and state
TABLE, PAGE, SUBMITTED = "sweep.csv", "sweep.html", "submitit"
OF_THE_GRID = ("output_dir", "run_id", "resume", "folder")


class Grid(Callback):
    """Hydra's callback that gives a grid its folder before its runs start, and writes the page after them.

    The folder is `hydra.sweep.dir/<id>`, where the id is `run_id` if it is given (a grid of this name goes on), or else
    that of a new run. A restarted job goes on with the grid it had started. On other ranks than 0 Hydra's own files go
    to a temporary folder.

    Args:
        own_folder: make the folder; False for `hydra.sweep.dir` itself, where one run alone is no grid.
    """

    def __init__(self, own_folder: bool = True) -> None:
        self.own_folder = own_folder
        self.folder: Path | None = None
        self._unused: str | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Choose and record the folder; exits with status 1 if the grid cannot go on there."""
        try:
            self._open(config)
        except (ValueError, OSError) as error:  # Hydra would only warn
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    def _open(self, config: DictConfig) -> None:
        if read_launch().rank != 0:
            self._unused = tempfile.mkdtemp(prefix="morphoclip-grid-")
            _set(config, "dir", self._unused)
            return
        runs, swept = runs_of(config)
        if not self.own_folder and len(runs) == 1:
            _set(config, "subdir", ".")
            return
        if refused := [key for key in swept if key in OF_THE_GRID]:
            raise ValueError(
                f"{refused[0]}= cannot be varied: each run of a grid has a folder of its own in that of the grid"
            )
        self.folder = self._folder(config)
        before = read_grid(self.folder)
        if before and before["runs"] != runs:
            raise ValueError(f"{self.folder} is a grid of {len(before['runs'])} other runs: give another run_id=")
        job = read_job()
        known = {"arguments": arguments_of(config), "job": job.name, "restarts": job.restarts, "runs": runs}
        with write_atomically(self.folder / GRID) as partial:
            partial.write_text(json.dumps(known, indent=1) + "\n")
        _set(config, "dir", str(self.folder))
        if self.own_folder and not before:
            atexit.register(remove_unused, self.folder)
        print(f"{self.folder} {'goes on' if before else 'starts'}: {len(runs)} runs", flush=True)
        write_table(self.folder / TABLE, grid_table(self.folder))

    def _folder(self, config: DictConfig) -> Path:
        below, job = Path(config.hydra.sweep.dir), read_job()
        if not self.own_folder:
            for path in (below / GRID, *below.glob(f"*/{RUN_OF_GRID}")):
                path.unlink(missing_ok=True)  # scores are computed again, as those of a single evaluation
            return below
        if any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
            return below
        if config.get("run_id") is not None:
            return below / str(config.run_id)
        for path in below.glob(f"*/{GRID}") if job.is_restart else ():
            known = read_grid(path.parent)
            same = (known["job"], known["arguments"]) == (job.name, arguments_of(config))
            if same and tuple(known["restarts"]) < job.restarts:
                return path.parent
        return new_folder(below, slurm_job())

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the page; exits with status 1 if a run has failed, 124 if one was ended by `max_time`."""
        if self._unused is not None:
            shutil.rmtree(self._unused, ignore_errors=True)
        if self.folder is None:
            return
        table = grid_table(self.folder)
        write_table(self.folder / TABLE, table)
        print(f"table: {self.folder / TABLE}\npage: {write_page(self.folder / PAGE, table)}", flush=True)
        failed = [row.name for row in table.rows if row.state == FAILED]
        open_ = [row.name for row in table.rows if row.state != FINISHED and row.name not in failed]
        if failed:
            print(f"error: {len(failed)} of {len(table.rows)} runs failed: {', '.join(failed)}", file=sys.stderr)
        if failed or open_:
            sys.exit(1 if failed else TIME_LIMIT)


def remove_unused(folder: Path) -> None:
    """Remove the folder of a grid of which no run was started, because its configs cannot be composed."""
    if (folder / GRID).is_file() and not any(folder.glob(f"**/{RUN_OF_GRID}")) and not (folder / SUBMITTED).is_dir():
        shutil.rmtree(folder)


def runs_of(config: DictConfig) -> tuple[list[list[str]], list[str]]:
    """(for each run of a grid the overrides in which it differs from others, keys that are varied)."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    hydra = GlobalHydra.instance().hydra
    parser = OverridesParser.create(config_loader=None if hydra is None else hydra.config_loader)
    given = [str(argument) for argument in config.hydra.overrides.task]
    given = [*(f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()), *given]
    swept = {o.get_key_element(): o for o in parser.parse_overrides(given) if o.is_sweep_override()}
    lists = [[f"{key}={value}" for value in o.sweep_string_iterator()] for key, o in swept.items()]
    return [list(run) for run in itertools.product(*lists)], list(swept)


def arguments_of(config: DictConfig) -> list[str]:
    """The overrides given to a grid."""
    return [str(argument) for argument in config.hydra.overrides.task]


def _set(config: DictConfig, key: str, value: str) -> None:
    """Set hydra.sweep.<key> of the grid and of its runs, whose configs Hydra composes anew."""
    with read_write(config), open_dict(config):
        config.hydra.sweep[key] = value
        config.hydra.overrides.hydra.append(f"hydra.sweep.{key}='{value}'")


def run_recorded(
    run: Callable[[DictConfig], Any], config: DictConfig, line_of: Callable[[BaseException], str | None]
) -> None:
    """Do a run of a grid, so that a failure is recorded and the others go on.

    Args:
        run: `run` of an experiment. config: of this run.
        line_of: error -> one line on what the user can correct, None for a defect of ours.

    Raises:
        SystemExit: the run was interrupted, so that the grid ends too; or it has failed on one of several ranks, which
            cannot go on together.
    """
    folder = folder_in_grid()
    assert folder is not None, "a run of a grid"
    hydra = HydraConfig.get()
    if "output_dir" in config and "run_id" not in config:  # an evaluation
        config.output_dir = str(folder)
    record = {"number": int(hydra.job.num), "overrides": list(hydra.overrides.task), "started": _now()}
    _write(folder, record, state=RUNNING)
    state, reason = FAILED, ""
    try:
        with saving_before_requeue():
            run(config)
        state = FINISHED
    except Exception as error:
        line = line_of(error)
        reason = line or f"{type(error).__name__}: {error}"
        if line is None:
            traceback.print_exc()
        print(f"error: {reason} (run {record['number']} of {folder.parent})", file=sys.stderr, flush=True)
        if read_launch().world_size > 1:
            sys.exit(1)
    except SystemExit as stop:
        state, reason = INTERRUPTED, f"ended with status {stop.code}"
        if stop.code != TIME_LIMIT:
            if "run_id" in config:
                print(f"all runs of the grid go on with\n  {again(Path(hydra.sweep.dir))}", file=sys.stderr, flush=True)
            raise
    finally:
        _write(folder, record, state=state, reason=reason, ended=_now())
        write_table(Path(hydra.sweep.dir) / TABLE, grid_table(Path(hydra.sweep.dir)))


def again(grid: Path) -> str:
    """The command that goes on with a grid."""
    given = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join([*given, *([] if any(a.startswith("run_id=") for a in given) else [f"run_id={grid.name}"])])


def _write(folder: Path, record: dict[str, Any], **fields: Any) -> None:
    with write_atomically(folder / RUN_OF_GRID) as partial:
        partial.write_text(json.dumps({**record, **fields}, indent=1) + "\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read_grid(folder: Path) -> dict[str, Any]:
    """What is recorded of a grid; empty if the folder has none."""
    return json.loads((folder / GRID).read_text()) if (folder / GRID).is_file() else {}


def grid_table(folder: Path) -> SweepTable:
    """The runs of a grid by number, with their scores and the last of the values that they logged."""
    started = {}
    for path in sorted(path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{RUN_OF_GRID}")):
        started[json.loads(path.read_text())["number"]] = path.parent
    rows = [_row(folder, number, run, started.get(number)) for number, run in enumerate(read_grid(folder)["runs"])]
    return SweepTable(
        f"Grid {folder.parent.name}/{folder.name}", rows, default_objectives([row.values for row in rows])
    )


def _row(grid: Path, number: int, overrides: list[str], folder: Path | None) -> Row:
    settings = dict(override.lstrip("+").split("=", 1) for override in overrides)
    if folder is None:
        return Row(str(number), PENDING, settings, {}, grid / str(number))
    own = json.loads((folder / RUN_OF_GRID).read_text())
    record = read_record(folder)
    reason = (own["state"] == INTERRUPTED and record.get("reason")) or own.get("reason") or ""
    values = shown_values(folder) if own["state"] == FINISHED else {}
    return Row(folder.name, own["state"], settings, values, folder, reason, record.get("step"), seconds_of(own))
