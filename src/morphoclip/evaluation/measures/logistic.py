"""Logistic regressions of many assays on one table of features, solved together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_LARGEST_GROUP = 64
_WASTE = 1.2  # rows computed per row needed, for assays solved together


def predict_assays(train: np.ndarray, outcomes: np.ndarray, test: np.ndarray, *, c: float = 1.0) -> np.ndarray:
    """Probabilities of activity (n_test, A) by a logistic regression per assay, classes balanced.

    The result is that of scikit-learn's `LogisticRegression(C=c, class_weight="balanced")` fitted to the measured
    compounds of each assay. Assays with many compounds in common are solved together (matrix products instead of a fit
    per assay).

    Args:
        train: (N, D). outcomes: (N, A), 1, 0 or NaN if not measured. test: (n_test, D).

    Returns:
        NaN for assays without both classes.
    """
    known = np.isfinite(outcomes)
    active = np.where(known, outcomes, 0).sum(axis=0)
    measured = known.sum(axis=0)
    both = (active > 0) & (active < measured)
    said = np.full((len(test), outcomes.shape[1]), np.nan)
    for assays in _groups(known, np.flatnonzero(both)):
        rows = known[:, assays].any(axis=1)
        y = np.where(known[rows][:, assays], outcomes[rows][:, assays], 0.0)
        share = np.where(
            y > 0, measured[assays] / (2 * active[assays]), measured[assays] / (2 * (measured - active)[assays])
        )
        x, at = _in_row_space(train[rows], test)
        weights = fit_logistic(x, y, np.where(known[rows][:, assays], share, 0.0), c)
        said[:, assays] = _sigmoid(at @ weights[:-1] + weights[-1])
    return said


def fit_logistic(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, c: float = 1.0, tolerance: float = 1e-6, steps: int = 100
) -> np.ndarray:
    """Minimise |w|²/2 + c Σ_i weight_ia log loss(y_ia, x_i w_a + b_a) for every column a, by Newton steps.

    Each step's linear system is solved by conjugate gradients, for all columns at once.

    Args:
        x: (N, D). y: (N, A) of 1 and 0. weight: (N, A), 0 for rows that do not count in a column.
        tolerance: the largest gradient at which a column is done, relative to that at 0.

    Returns:
        (D + 1, A), the intercepts (which are not penalised) in the last row.
    """
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1, dtype=np.float64)
    penalty = np.ones((x.shape[1], 1))
    penalty[-1] = 0
    square = np.square(x)
    w = np.zeros((x.shape[1], y.shape[1]))
    first = None
    left = np.arange(y.shape[1])
    for _ in range(steps):
        z, own, target = x @ w[:, left], weight[:, left], y[:, left]
        p = _sigmoid(z)
        gradient = penalty * w[:, left] + c * (x.T @ (own * (p - target)))
        size = np.abs(gradient).max(axis=0)
        first = size if first is None else first
        going = size > tolerance * np.maximum(first[left], 1e-12)
        if not going.any():
            break
        left, gradient = left[going], gradient[:, going]
        own, target, z, p = own[:, going], target[:, going], z[:, going], p[:, going]
        curvature = c * own * p * (1 - p)
        near = size[going] / first[left]
        step = _conjugate_gradients(x, penalty, curvature, -gradient, penalty + square.T @ curvature, near)
        w[:, left] += step * _step_sizes(
            w[:, left], step, z, x @ step, target, own, penalty, c, (gradient * step).sum(axis=0)
        )
    return w


def _in_row_space(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in coordinates of the space that the rows of `train` span, if these are fewer than the features.

    The penalised weights lie in this space, so the predictions are the same.
    """
    if len(train) >= train.shape[1]:
        return train, test
    values, vectors = np.linalg.eigh(train @ train.T)
    kept = values > 1e-12 * values[-1]
    axes = train.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return train @ axes, test @ axes


def _conjugate_gradients(
    x: np.ndarray,
    penalty: np.ndarray,
    curvature: np.ndarray,
    right: np.ndarray,
    diagonal: np.ndarray,
    near: np.ndarray,
    most: int = 200,
) -> np.ndarray:
    """Solve (penalty + xᵀ curvature x) s = right for each column, preconditioned by the diagonal.

    The nearer a column is to its minimum (`near`: its gradient relative to that at 0), the more exactly.
    """
    diagonal = np.maximum(diagonal, 1e-12)
    solution, residual = np.zeros_like(right), right.copy()
    scaled = residual / diagonal
    direction, product = scaled.copy(), (residual * scaled).sum(axis=0)
    enough = np.minimum(1e-2, near**2) * product  # loose at first, as further steps follow
    for _ in range(most):
        if (product <= enough).all():
            break
        image = penalty * direction + x.T @ (curvature * (x @ direction))
        bend = (direction * image).sum(axis=0)
        length = np.divide(product, bend, out=np.zeros_like(bend), where=(bend > 0) & (product > enough))
        solution += length * direction
        residual -= length * image
        scaled = residual / diagonal
        before, product = product, (residual * scaled).sum(axis=0)
        ratio = np.divide(product, before, out=np.zeros_like(product), where=before > 0)
        direction = scaled + ratio * direction
    return solution


def _step_sizes(
    w: np.ndarray, step: np.ndarray, z: np.ndarray, dz: np.ndarray, y: np.ndarray, weight: np.ndarray,
    penalty: np.ndarray, c: float, slope: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """For each column the first of 1, 1/2, 1/4, … at which the loss falls enough."""

    def loss(t: np.ndarray) -> np.ndarray:
        at = z + t * dz
        fit = (weight * (np.logaddexp(0, at) - y * at)).sum(axis=0)
        return (penalty * (w + t * step) ** 2).sum(axis=0) / 2 + c * fit

    start, t = loss(np.zeros(len(slope))), np.ones(len(slope))
    for _ in range(30):
        short = loss(t) > start + 1e-4 * t * slope + 1e-12 * np.abs(start)
        if not short.any():
            break
        t[short] /= 2
    return t


def _groups(known: np.ndarray, assays: np.ndarray) -> Iterator[np.ndarray]:
    """Assays in groups whose compounds overlap enough to be solved together."""
    order = assays[np.argsort(-known[:, assays].sum(axis=0), kind="stable")]
    group: list[int] = []
    union = np.zeros(len(known), bool)
    needed = 0
    for assay in order:
        rows = known[:, assay]
        joined, more = union | rows, needed + int(rows.sum())
        if group and (len(group) == _LARGEST_GROUP or joined.sum() * (len(group) + 1) > _WASTE * more):
            yield np.array(group)
            group, joined, more = [], rows.copy(), int(rows.sum())
        group.append(int(assay))
        union, needed = joined, more
    if group:
        yield np.array(group)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(z)
