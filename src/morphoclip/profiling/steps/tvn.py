"""Typical variation normalisation: principal axes of the controls, scaled and aligned per group (Ando et al. 2017)."""

from __future__ import annotations


def expand(fit_on: str, by: str, eps: float = 0.5) -> list[dict]:
    """The steps of TVN: scale, principal axes, then per group scale again and CORAL."""
    return [
        {"step": "center_scale", "fit_on": fit_on, "by": "all"},
        {"step": "pca", "fit_on": fit_on, "by": "all"},
        {"step": "center_scale", "fit_on": fit_on, "by": by},
        {"step": "coral", "fit_on": fit_on, "by": by, "eps": eps},
    ]
