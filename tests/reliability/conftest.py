"""A folder of runs with its simulated screen, and a run that nothing disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.commands import TINY, start


@pytest.fixture(scope="session")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reliability")


@pytest.fixture(scope="session")
def straight(outputs) -> Path:
    start(*TINY, f"output_dir={outputs}", "run_id=straight")
    return outputs / "demo/straight"
