"""Harmony (Korsunsky et al. 2019), by harmonypy: mix groups within clusters of similar wells."""

from __future__ import annotations

import numpy as np


def apply_together(
    x: np.ndarray,
    groups: np.ndarray,
    theta: float = 2.0,
    sigma: float = 0.1,
    clusters: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Correct wells (N, D) of at least two groups (N,) together; use `pca` before it, as in the paper.

    The correction applies only to the wells it was computed on: with further plates the result of the old ones changes.

    Args:
        theta: strength of mixing, 0 for none. sigma: width of the soft clusters.
        clusters: number of clusters; default N/30, at most 100.

    Raises:
        ImportError: harmonypy is not installed. ValueError: one group only.
    """
    import pandas as pd

    try:
        from harmonypy import run_harmony
    except ImportError as error:
        raise ImportError("step harmony needs harmonypy: uv sync --extra harmony, or pip install harmonypy") from error
    if len(np.unique(groups)) < 2:
        raise ValueError("step 'harmony' needs at least two groups to mix: give all plates at once, or leave it out")
    labels = pd.DataFrame({"group": groups})
    options = {"theta": theta, "sigma": sigma, "nclust": clusters, "random_state": seed, "verbose": False}
    return run_harmony(x.astype(np.float64), labels, ["group"], **options).Z_corr.astype(x.dtype)
