"""Mix groups within clusters of alike wells (Harmony: Korsunsky et al. 2019), by harmonypy."""

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
    """Wells (N, D) of at least two groups (N,), corrected together; put `pca` before it, as the paper does.

    Nothing is kept for later tables: a correction belongs to the wells it was found on, so new plates change the old.

    Args:
        theta: how much mixing is asked for; 0 asks for none. sigma: width of the soft clusters.
        clusters: default N/30, at most 100.

    Raises:
        ImportError: harmonypy is not installed. ValueError: one group only.
    """
    import pandas as pd

    try:
        from harmonypy import run_harmony
    except ImportError as error:
        raise ImportError("step harmony needs harmonypy: uv sync --extra harmony, or pip install harmonypy") from error
    if len(np.unique(groups)) < 2:
        raise ValueError("step 'harmony' has one group only, nothing to mix: give all plates at once, or leave it out")
    labels = pd.DataFrame({"group": groups})
    options = {"theta": theta, "sigma": sigma, "nclust": clusters, "random_state": seed, "verbose": False}
    return run_harmony(x.astype(np.float64), labels, ["group"], **options).Z_corr.astype(x.dtype)
