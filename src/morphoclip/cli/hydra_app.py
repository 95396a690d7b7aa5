"""`train` and `evaluate`: arguments to Hydra, one config to the experiment, errors by the one rule."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from morphoclip import configs_dir
from morphoclip.cli.errors import USAGE, fail, wants_traceback
from morphoclip.cli.quiet import quiet_libraries

# Name of the main config -> module whose `run(config)` does the work. Imported late: --help needs no torch.
RUNS = {"train": "morphoclip.experiment.run", "evaluate": "morphoclip.experiment.evaluate"}
# `encoder` names a group of configs, of which train chooses one; evaluate's `encoder=` is a path and has another key.
PATHS = {"evaluate": {"encoder": "encoder_folder"}}
# Keys whose values are names: 48213, 1e5 or nan are meant as they are typed.
NAMES = ("run_id", "name", "run", "title")


def main(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run `train` or `evaluate` with Hydra's arguments (key=value, --config-dir, -m, --cfg job, --help, …).

    Args:
        name: of the config in configs/, a key of `RUNS`.
        arguments: of the command line, without the program's name; default those of this process.

    Exits with status 2 where the arguments do not compose, 1 where the run fails by what the user can put right.
    """
    # Threads that wait by spinning cost several times the work itself where cores are shared; set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import hydra

    quiet_libraries()
    given = list(sys.argv[1:] if arguments is None else arguments)
    typed, full_error = list(sys.argv), wants_traceback()

    @hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name=name)
    def composed(config) -> None:
        sys.argv = [typed[0], *(typed[1:] if arguments is None else [name, *given])]  # what the report records
        _restore(full_error)
        _run(RUNS[name], config)

    sys.argv = [typed[0], *(_as_meant(argument, PATHS.get(name, {})) for argument in given)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what it finds wrong, and the rule below prints it
    try:
        composed()
    except Exception as error:
        _restore(full_error)
        fail(error, USAGE)
    finally:
        _restore(full_error)
        sys.argv = typed


def _run(module: str, config) -> None:
    """Run the experiment; a failure ends here, before Hydra prints about it."""
    try:
        run: Callable = import_module(module).run
        run(config)
    except Exception as error:
        fail(error)


def _restore(full_error: bool) -> None:
    """HYDRA_FULL_ERROR as the user set it."""
    if full_error:
        os.environ["HYDRA_FULL_ERROR"] = "1"
    else:
        os.environ.pop("HYDRA_FULL_ERROR", None)


def _as_meant(argument: str, keys: dict[str, str]) -> str:
    """`argument` with its key replaced where that is one of `keys`, and its value quoted where it is a bare name."""
    key, equals, value = argument.partition("=")
    if not equals:
        return argument
    if key in NAMES and re.fullmatch(r"[\w.+-]+", value) and value != "null":
        value = f"'{value}'"
    return f"{keys.get(key, key)}={value}"
