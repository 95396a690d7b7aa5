"""Identity of runs: their folders, what `run.json` records of them, and which one a start goes on with."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from morphoclip.experiment.changes import check_changes, describe
from morphoclip.experiment.sweeps.grid_folder import folder_in_grid
from morphoclip.files import write_atomically
from morphoclip.lock import DEAD_AFTER, FolderLock

if TYPE_CHECKING:
    from morphoclip.training.launch import Job

RECORD, LOCK = "run.json", "run.lock"
RUNNING, INTERRUPTED, FAILED, FINISHED, PRUNED = "running", "interrupted", "failed", "finished", "pruned"
LATEST = "latest"


@dataclass(frozen=True)
class Start:
    """What a start begins with.

    Attributes:
        folder: the run's folder.
        checkpoint: the one to go on from; None to begin.
        finished: nothing is left to do.
    """

    folder: Path
    checkpoint: Path | None = None
    finished: bool = False


def open_run(config: DictConfig, composed: Mapping[str, Any], ranks: int, held: ExitStack) -> Start:
    """Choose or make the folder of a run, lock it and record the start; for rank 0 only.

    A run goes on if `resume` or `run_id` names it, or if Slurm or torchrun restarted it with the same config.

    Args:
        config: config of the run; `output_dir`, `name`, `run_id` and `resume` decide.
        composed: `flat(config)` before anything was set in it.
        ranks: number of processes.
        held: keeps the lock until the run ends, and records how it ended.

    Raises:
        FileNotFoundError: `resume` names no run.
        ValueError: both `resume` and `run_id`, or a config with which the run cannot go on.
        BlockingIOError: another process runs in the folder.
    """
    from morphoclip.checkpoints import last_checkpoint, step_of
    from morphoclip.training.launch import read_job

    job = read_job()
    folder = _folder(config, composed, job)
    lock = FolderLock(folder / LOCK, job.name)
    held.enter_context(lock.acquire(patience=DEAD_AFTER if job.is_restart else 0.0))
    before = read_record(folder)
    about = f"{config.method._target_.rsplit('.', 1)[-1]} with encoder {config.encoder.name}, seed {config.seed}"
    checkpoint = last_checkpoint(folder)
    ranks_before = int(before.get("ranks", ranks))
    if before.get("config"):
        check_changes(before["config"], composed)
    if before.get("state") == FINISHED and before["config"] == composed:
        write_record(folder, restarts=job.restarts)
        print(f"{folder} is finished at step {before.get('step')}: nothing is left to do", flush=True)
        return Start(folder, checkpoint, finished=True)
    goes_on = f"goes on at step {step_of(checkpoint)}" if checkpoint else "starts"
    print(f"{folder} {goes_on}: {about}", flush=True)
    if before:
        print("\n".join(describe(before.get("config", composed), composed, (ranks_before, ranks))) or "nothing changed")
    if lock.taken_from:
        print(f"{folder / LOCK} was left by {lock.taken_from}, which has ended: taken over")
    held.enter_context(_recorded(folder))
    write_record(
        folder,
        state=RUNNING,
        reason=None,
        arguments=arguments_of_start() or before.get("arguments", []),
        job=job.name,
        restarts=job.restarts,
        ranks=ranks,
        host=os.uname().nodename,
        pid=os.getpid(),
        started=_now(),
        config=composed,
    )
    return Start(folder, checkpoint)


def _folder(config: DictConfig, composed: Mapping[str, Any], job: Job) -> Path:
    """The folder of the run to start or to go on with."""
    from morphoclip.training.launch import slurm_job

    runs, in_grid = Path(config.output_dir) / config.name, folder_in_grid()
    if in_grid is not None:
        return in_grid
    if config.resume is not None:
        if config.run_id is not None:
            raise ValueError("give either resume= (a run that exists) or run_id= (a name for a run), not both")
        return find_run(config.output_dir, str(config.resume))
    if config.run_id is not None:
        return runs / config.run_id
    if job.is_restart:
        for folder in sorted(runs.glob(f"*/{RECORD}"), key=lambda path: path.stat().st_ctime):
            known = read_record(folder.parent)
            if (
                known.get("job") == job.name
                and known.get("config") == composed
                and tuple(known["restarts"]) < job.restarts
            ):
                return folder.parent
    return new_folder(runs, slurm_job())


def new_folder(runs: Path, job: str | None) -> Path:
    """Make a folder whose name no other run has: slurm-<job>-<n>, or the time of the start."""
    runs.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        number += 1
        clock = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        folder = runs / (clock if job is None else f"{job}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def find_run(output_dir: str | Path, asked: str) -> Path:
    """The folder of an existing run.

    Args:
        asked: the run's id, name/id, path, or "latest" for the one that was active last.

    Raises:
        FileNotFoundError: there is no such run; the message has the nearest names.
        ValueError: several names have a run of this id.
    """
    output_dir = Path(output_dir)
    if asked != LATEST and (Path(asked) / RECORD).is_file():
        return Path(asked)
    records = sorted(
        (path for depth in ("*/*", "*/*/*") for path in output_dir.glob(f"{depth}/{RECORD}")),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    runs = {str(path.parent.relative_to(output_dir)): path.parent for path in records}
    if asked == LATEST and runs:
        return next(iter(runs.values()))
    found = [name for name in runs if asked in (name, runs[name].name)]
    if len(found) > 1:
        raise ValueError(f"resume={asked} is the id of several runs: give one of {', '.join(found)}")
    if found:
        return runs[found[0]]
    by_id = {folder.name: name for name, folder in runs.items()}
    close = difflib.get_close_matches(asked, [*runs, *by_id], n=3, cutoff=0.4)
    nearest = list(dict.fromkeys(by_id.get(name, name) for name in close)) or list(runs)[:3]
    hint = f"nearest: {', '.join(nearest)}" if nearest else "it has no runs"
    raise FileNotFoundError(f"there is no run {asked!r} in {output_dir}; {hint}. Without resume= a new run starts")


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a folder's run.json; empty if there is none."""
    path = folder / RECORD
    return json.loads(path.read_text()) if path.is_file() else {}


def write_record(folder: Path, **fields: Any) -> None:
    """Set fields of a folder's run.json."""
    with write_atomically(folder / RECORD) as partial:
        partial.write_text(json.dumps({**read_record(folder), **fields}, indent=1) + "\n")


@contextmanager
def _recorded(folder: Path) -> Iterator[None]:
    """Record how the block ends: run.json gets its state, the reason and the step of the last checkpoint."""
    from morphoclip.checkpoints import last_checkpoint, step_of
    from morphoclip.training.interrupts import PRUNED as BY_SWEEP
    from morphoclip.training.interrupts import Interrupted

    state, reason = FINISHED, None
    try:
        yield
    except Interrupted as stop:
        state, reason = PRUNED if stop.status == BY_SWEEP else INTERRUPTED, str(stop)
        raise
    except BaseException as error:
        state, reason = FAILED, f"{type(error).__name__}: {error}"
        raise
    finally:
        last = last_checkpoint(folder)
        step = None if last is None else step_of(last)
        try:
            write_record(folder, state=state, reason=reason, step=step, ended=_now())
        except OSError as error:  # a full disk must not hide why the run ended
            print(f"{folder / RECORD} could not be written: {error}", file=sys.stderr)
        if state == INTERRUPTED:
            saved = f"step {step} is saved" if last else "nothing was saved yet"
            print(f"\n{reason}; {saved}; go on with\n  {again(folder)}", file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def arguments_of_start() -> list[str]:
    """The arguments of this run's command: in a sweep those of one run. Empty if it was not started by a command."""
    if not HydraConfig.initialized():
        return []
    given = sys.argv[1:]
    folders = [pair for pair in itertools.pairwise(given) if pair[0] in ("--config-dir", "-cd")]
    joined = [argument for argument in given if argument.startswith("--config-dir=")]
    overrides = [
        o for o in HydraConfig.get().overrides.task if o.partition("=")[0] not in ("resume", "run_id", "max_time")
    ]
    return [*(part for pair in folders for part in pair), *joined, *overrides]


def resumed_arguments(given: list[str], output_dir: str) -> list[str]:
    """The arguments of a command that contains `resume=`, with those of the run that it goes on with before them.

    Args:
        given: arguments of the command.
        output_dir: where runs are looked for if `given` does not say.

    Raises:
        FileNotFoundError, ValueError: see `find_run`; or the command is a sweep.
    """
    values = {key: value for key, equals, value in (a.partition("=") for a in given) if equals}
    if not values.get("resume") or values["resume"] == "null":
        return given
    if {"-m", "--multirun"} & set(given):
        raise ValueError("resume= goes on with one run: leave out -m")
    folder = find_run(values.get("output_dir", output_dir).strip("'\""), values["resume"].strip("'\""))
    own = [argument for argument in given if not argument.startswith("resume=")]
    replaced = {_key(argument) for argument in own}
    saved = [argument for argument in read_record(folder).get("arguments", []) if _key(argument) not in replaced]
    return [*saved, *own, f"resume='{folder}'"]


def _key(argument: str) -> str:
    """What an override sets; the argument itself if it is none."""
    key, equals, _ = argument.partition("=")
    return key.lstrip("+") if equals and not key.startswith("-") else argument


def again(folder: Path) -> str:
    """The command that goes on with a run, as this process was started."""
    program = "train.py" if Path(sys.argv[0]).name == "train.py" else "morphoclip train"
    ranks = os.environ.get("LOCAL_WORLD_SIZE")
    if ranks is not None:
        program = f"torchrun --nproc-per-node {ranks} train.py"
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return f"sbatch slurm/train.sbatch resume={shlex.quote(str(folder))}"
    return f"uv run {program} resume={shlex.quote(str(folder))}"
