"""`train` and `evaluate`: pass arguments to Hydra, run the experiment on the composed config, report errors."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from morphoclip import configs_dir
from morphoclip.cli.errors import USAGE, fail, message_of, wants_traceback
from morphoclip.cli.quiet import quiet_libraries

# Name of the main config -> module whose `run(config)` is called. Imported late: --help needs no torch.
RUNS = {"train": "morphoclip.experiment.run", "evaluate": "morphoclip.experiment.evaluate"}
# In `train`, `encoder=` chooses from a config group; in `evaluate` it is a path, stored under another key.
PATHS = {"evaluate": {"encoder": "encoder_folder"}}
# Groups of `train` that choose a file by its name, or else set a key to what was typed.
FILE_OR_VALUE = {"init": "init.from"}
# Keys whose values are text: 48213, 1e5 or nan are taken as typed.
NAMES = ("run_id", "name", "run", "title", "resume", "max_time", "rank_timeout")


def main(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run `train` or `evaluate` with Hydra's arguments (key=value, --config-dir, -m, --cfg job, --help, …).

    Args:
        name: name of the main config in configs/, a key of `RUNS`.
        arguments: command-line arguments without the program name; default: those of this process.

    Exits with status 2 if the config cannot be composed, and 1 if the run fails with an error the user can correct.
    """
    # On shared cores, threads that spin while waiting cost several times the work itself. Set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import hydra

    from morphoclip.experiment.overrides import WrongOverride, explained

    quiet_libraries()
    given = list(sys.argv[1:] if arguments is None else arguments)
    folders = [configs_dir(), *_own_folders(given)]
    typed, full_error = list(sys.argv), wants_traceback()
    if name == "train" and any(argument.startswith("resume=") for argument in given):
        given = _with_the_runs_own(given)

    @hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name=name)
    def composed(config) -> None:
        sys.argv = [typed[0], *([] if arguments is None else [name]), *given]  # the report and the run record it
        _restore(full_error)
        _run(name, config)

    try:
        sys.argv = [typed[0], *as_typed(name, given, folders)]
    except WrongOverride as error:
        fail(error, USAGE)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors, which `fail` then prints
    try:
        composed()
    except Exception as error:
        _restore(full_error)
        fail(explained(error, name, sys.argv[1:], folders), USAGE)
    finally:
        _restore(full_error)
        sys.argv = typed


def _with_the_runs_own(given: list[str]) -> list[str]:
    """The arguments with those of the run that `resume=` names."""
    from morphoclip.experiment.runs import resumed_arguments

    try:
        return resumed_arguments(given, "outputs")
    except (ValueError, OSError) as error:
        fail(error)


def as_typed(name: str, given: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Arguments for Hydra that mean what was typed: paths and names quoted, `--dry-run`, what is switched off."""
    from morphoclip.experiment.typed_arguments import as_hydra_reads

    meant = [_as_meant(argument, PATHS.get(name, {})) for argument in given]
    if name == "train":
        in_grid = any(argument in ("-m", "--multirun") for argument in given)
        meant = [_as_file_or_value(argument, folders, in_grid) for argument in meant]
    return as_hydra_reads(name, meant, folders)


def _own_folders(given: Sequence[str]) -> list[Path]:
    """The folders of `--config-dir`."""
    folders = [argument.partition("=")[2] for argument in given if argument.startswith("--config-dir=")]
    folders += [folder for option, folder in itertools.pairwise(given) if option in ("--config-dir", "-cd")]
    return [Path(folder).absolute() for folder in folders if Path(folder).is_dir()]


def _run(name: str, config) -> None:
    """Check what was typed, run the experiment, and report a failure here, before Hydra prints its own."""
    from morphoclip.experiment.overrides import WrongOverride, checked
    from morphoclip.experiment.sweeps.grid_folder import folder_in_grid

    try:
        for note in checked(config, name):
            print(note)
        run: Callable = import_module(RUNS[name]).run
        if folder_in_grid() is None:
            run(config)
        else:
            import_module("morphoclip.experiment.sweeps.grid").run_recorded(run, config, message_of)
    except WrongOverride as error:
        fail(error, USAGE)
    except Exception as error:
        fail(error)


def _restore(full_error: bool) -> None:
    """Set HYDRA_FULL_ERROR back to the user's value."""
    if full_error:
        os.environ["HYDRA_FULL_ERROR"] = "1"
    else:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _as_meant(argument: str, keys: dict[str, str]) -> str:
    """`argument` with its key renamed by `keys`, and its value quoted if the key is one of text."""
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    if key in NAMES and re.fullmatch(r"[\w.+:-]+", value) and value != "null":
        value = f"'{value}'"
    return f"{keys.get(key, key)}={value}"


def _as_file_or_value(argument: str, folders: Sequence[Path], in_grid: bool) -> str:
    """`argument` with the key of its value, quoted, unless it names a file of the group in `FILE_OR_VALUE`.

    In a grid a comma separates values.
    """
    key, _, typed = argument.partition("=")
    group = FILE_OR_VALUE.get(key)
    if group is None or typed in ("", "null") or any((folder / key / f"{typed}.yaml").is_file() for folder in folders):
        return argument
    values = typed.split(",") if in_grid else [typed]
    return f"{group}={','.join(_quoted(value) for value in values)}"


def _quoted(value: str) -> str:
    escaped = value.strip("'\"").replace("'", "\\'")
    return f"'{escaped}'"
