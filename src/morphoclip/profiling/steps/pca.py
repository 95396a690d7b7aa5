"""Project on the principal components of the reference wells."""

from __future__ import annotations

import warnings

import numpy as np

from morphoclip.profiling.principal import principal_axes

ONE_GROUP = True
WHEN_FEWER = ("refuse", "keep_all")


def fit(x: np.ndarray, n_components: int | float | None = None, when_fewer: str = "refuse") -> dict[str, np.ndarray]:
    """Mean (D,) and axes (D, K).

    Args:
        n_components: K, or a float in (0, 1) for the number that explains that fraction of the variance; default: all.
        when_fewer: `refuse`, or `keep_all` with a warning, if the reference wells span fewer than K components.

    Raises:
        ValueError: more components than the reference wells span, or an unknown `when_fewer`.
    """
    if when_fewer not in WHEN_FEWER:
        raise ValueError(f"pca when_fewer={when_fewer!r}: use one of {WHEN_FEWER}")
    mean = x.mean(0)
    whole = n_components if isinstance(n_components, int) and n_components > 0 else None
    singular, axes = principal_axes(x - mean, at_most=whole)
    kept = len(singular)
    if isinstance(n_components, float) and 0 < n_components < 1:
        share = np.cumsum(singular**2) / (singular**2).sum()
        kept = int(np.searchsorted(share, n_components) + 1)
    elif n_components is not None and kept < n_components and when_fewer == "keep_all":
        warnings.warn(f"pca keeps {kept} components instead of {n_components}: the wells span no more", stacklevel=2)
    elif n_components is not None:
        if not 1 <= n_components <= kept or n_components != int(n_components):
            raise ValueError(
                f"pca: n_components={n_components}, but {len(x)} reference wells span {kept} components; "
                "use an integer up to that, a fraction of the variance in (0, 1), or when_fewer: keep_all"
            )
        kept = int(n_components)
    return {"mean": mean, "axes": axes[:, :kept]}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: object) -> np.ndarray:
    return (x - state["mean"].astype(x.dtype)) @ state["axes"].astype(x.dtype)


def columns(names: list[str], state: dict[str, np.ndarray], **_: object) -> list[str]:
    return [f"PC{i + 1}" for i in range(state["axes"].shape[1])]
