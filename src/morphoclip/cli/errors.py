"""How every command reports errors: one line for what the user can correct, a traceback for our own defects."""

from __future__ import annotations

import os
import re
import sys
from typing import NoReturn

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

# Raised by libraries and by us for a wrong value, file or table, a missing extra, or a run that diverged.
USERS = (ValueError, KeyError, OSError, ImportError, FloatingPointError, HydraException, OmegaConfBaseException)
WRONG_ARGUMENTS = re.compile(r"unexpected keyword argument|missing \d+ required|multiple values for")
MISSING = re.compile(r"Missing mandatory value: (\S+)")
LONGEST = 1500
USAGE, FAILURE = 2, 1


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks: HYDRA_FULL_ERROR=1."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def message_of(error: BaseException) -> str | None:
    """One line on what the user can correct; None for a defect of ours."""
    if isinstance(error, InstantiationException):  # Hydra wraps the error of a class or function named in a config
        cause = error.__cause__
        if isinstance(cause, TypeError) and WRONG_ARGUMENTS.search(str(cause)):
            where = re.search(r"full_key: (\S+)", str(error))
            return f"{cause}; check the keys of {where.group(1) if where else 'the config'}"
        return None if cause is None else message_of(cause)
    if _is_misconfiguration(error) or isinstance(error, USERS):
        # str() of a KeyError would quote its message
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        line = " ".join(text.split()) or type(error).__name__
        if isinstance(error, OmegaConfBaseException) and (missing := MISSING.search(line)):
            line = f"{missing[1]} is not set: give {missing[1]}=…"
        return line if len(line) <= LONGEST else f"{line[:LONGEST]} …"
    return None


def _is_misconfiguration(error: BaseException) -> bool:
    """Whether Lightning refused an argument; compared by name, because importing Lightning takes seconds."""
    return any(base.__name__ == "MisconfigurationException" for base in type(error).__mro__)


def fail(error: BaseException, status: int = FAILURE) -> NoReturn:
    """Print a user's error as one line on stderr and exit with `status`; raise a defect of ours unchanged."""
    line = message_of(error)
    if line is None or wants_traceback():
        raise error
    print(f"error: {line} (HYDRA_FULL_ERROR=1 prints the traceback)", file=sys.stderr)
    sys.exit(status)
