"""Runs a sweep over the stub in a process of its own, as `morphoclip sweep` does: python -m tests.sweeps.driver CONFIG …"""

from __future__ import annotations

import sys
from pathlib import Path

from morphoclip.experiment.sweeps.drive import run_sweep
from morphoclip.experiment.sweeps.processes import Processes
from morphoclip.experiment.sweeps.settings import read_settings
from morphoclip.training.interrupts import Interrupted

STUB = [sys.executable, "-S", str(Path(__file__).with_name("stub.py"))]


def run(config: Path, *arguments: str) -> int:
    """The exit status of a sweep over the stub."""
    settings = read_settings(config, arguments)
    launcher = Processes(settings.n_jobs, 0, STUB)
    launcher.poll_s = 0.02
    try:
        return run_sweep(settings, launcher)
    except Interrupted as stop:
        return stop.status


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), *sys.argv[2:]))
