"""A sweep over the stub."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFIG = """
name: study
objective: {metric: train/loss, direction: minimize}
space:
  optimizer.lr: {type: float, low: 1.0e-5, high: 1.0e-2, log: true}
sampler: {type: random, seed: 3}
n_trials: 8
n_jobs: 2
"""


@pytest.fixture
def config(tmp_path) -> Path:
    """A file with the settings of a sweep whose outputs are beside it."""
    path = tmp_path / "study.yaml"
    path.write_text(f"{CONFIG}output_dir: {tmp_path}\n")
    return path
