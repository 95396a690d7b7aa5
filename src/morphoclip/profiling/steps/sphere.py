"""Whiten features with the covariance of the reference wells (Kessy et al. 2016, arXiv:1512.00809)."""

from __future__ import annotations

import warnings

import numpy as np

from morphoclip.profiling.principal import principal_axes
from morphoclip.profiling.scale import positive_scale, shift_and_scale

METHODS = ("ZCA", "ZCA-cor", "PCA", "PCA-cor")
WELLS_PER_FEATURE = 2.5


def fit(x: np.ndarray, method: str = "ZCA-cor", eps: float = 1e-6, shrinkage: float = 0.0) -> dict[str, np.ndarray]:
    """The whitening of reference wells (n, D): location (D,), scale (D,), matrix (D, D) or (D, rank) for PCA.

    Args:
        method: `ZCA` stays closest to the features, `PCA` rotates to principal axes; `-cor` uses correlations.
        eps: added to the singular values of the centred data, as pycytominer does.
        shrinkage: 0..1, shrinkage of the covariance's eigenvalues to their mean (Ledoit & Wolf's target).

    Directions without variance (with fewer reference wells than features) are scaled like the direction with the
    smallest variance, as in pycytominer; PCA leaves them out.

    Raises:
        ConstantFeatureError: a feature is constant and the method is `-cor`.
        ValueError: unknown method, shrinkage out of range, or no variation at all.
    """
    if method not in METHODS:
        raise ValueError(f"sphere method={method!r}: use one of {METHODS}")
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"sphere shrinkage={shrinkage} must be between 0 and 1")
    n, d = x.shape
    if n < WELLS_PER_FEATURE * d and shrinkage == 0:
        warnings.warn(
            f"sphering {d} features on {n} wells is unstable ({n / d:.2f} wells per feature, below {WELLS_PER_FEATURE}): "
            "set shrinkage, reduce features first (step pca) or fit on more wells",
            stacklevel=2,
        )
    location = x.mean(0)
    scale = positive_scale(x.std(0), location, 0.0) if method.endswith("-cor") else np.ones(d)
    singular, axes = principal_axes(shift_and_scale(x, {"location": location, "scale": scale}))
    if not singular.size:
        raise ValueError("sphere: the reference wells do not vary at all; check that they are not copies of one well")
    weakest = singular[-1]
    if shrinkage:
        mean_square = (singular**2).sum() / d
        singular = np.sqrt((1 - shrinkage) * singular**2 + shrinkage * mean_square)
        weakest = np.sqrt(shrinkage * mean_square)
    gain, rest = np.sqrt(n - 1) / (singular + eps), np.sqrt(n - 1) / (weakest + eps)
    if method.startswith("PCA"):
        matrix = axes * gain
    else:
        matrix = axes * (gain - rest) @ axes.T
        matrix[np.diag_indices(d)] += rest  # the orthogonal complement of the axes, without computing a basis of it
    return {"location": location, "scale": scale, "matrix": matrix}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: object) -> np.ndarray:
    return shift_and_scale(x, state) @ state["matrix"].astype(x.dtype)


def columns(names: list[str], state: dict[str, np.ndarray], method: str = "ZCA-cor", **_: object) -> list[str]:
    return names if method.startswith("ZCA") else [f"PC{i + 1}" for i in range(state["matrix"].shape[1])]
