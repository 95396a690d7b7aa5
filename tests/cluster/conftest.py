"""One Slurm for all tests of this folder, which are skipped where none can be started."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm, why_not


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    env = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    env["MORPHOCLIP"] = str(Path(sys.executable).with_name("morphoclip"))
    cluster = Slurm(tmp_path_factory.mktemp("slurm"), env)
    cluster.start()
    yield cluster
    cluster.stop()
