"""Feature selection by pycytominer's criteria, in the order given."""

from __future__ import annotations

import numpy as np

ONE_GROUP = True
TAKES_MISSING = True

OPERATIONS = ("drop_missing", "variance_threshold", "frequency_threshold", "correlation_threshold", "drop_outliers")


def fit(
    x: np.ndarray,
    operations: list[str] | tuple[str, ...] = ("variance_threshold", "correlation_threshold"),
    missing_cutoff: float = 0.05,
    min_variance: float = 1e-6,
    freq_cut: float = 0.05,
    unique_cut: float = 0.01,
    corr_threshold: float = 0.9,
    outlier_cutoff: float = 500.0,
) -> dict[str, np.ndarray]:
    """Indices of the features that pass all operations, each applied to the result of the one before.

    Args:
        operations: criteria for dropping a feature. `drop_missing`: fraction of NaN or inf above missing_cutoff;
            `variance_threshold`: variance at or below min_variance; `frequency_threshold`: ratio of the second most
            common value to the most common below freq_cut, or of distinct values to wells below unique_cut;
            `correlation_threshold`: of two features correlated above corr_threshold, the one more correlated with all
            others; `drop_outliers`: |value| above outlier_cutoff.

    Raises:
        ValueError: an unknown operation.
    """
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown:
        raise ValueError(f"unknown feature_select operations {unknown}: use those of {OPERATIONS}")
    kept = np.arange(x.shape[1])
    for name in operations:
        remaining = x[:, kept]
        if name == "drop_missing":
            passing = (~np.isfinite(remaining)).mean(0) <= missing_cutoff
        elif name == "variance_threshold":
            passing = np.nanvar(remaining, axis=0) > min_variance
        elif name == "frequency_threshold":
            passing = np.array([_frequent(column, freq_cut, unique_cut) for column in remaining.T])
        elif name == "correlation_threshold":
            passing = _uncorrelated(remaining, corr_threshold)
        else:
            passing = ~(np.nanmax(np.abs(remaining), axis=0) > outlier_cutoff)
        kept = kept[passing]
    return {"kept": kept}


def apply(x: np.ndarray, state: dict[str, np.ndarray], **_: object) -> np.ndarray:
    return x[:, state["kept"]]


def columns(names: list[str], state: dict[str, np.ndarray], **_: object) -> list[str]:
    return [names[i] for i in state["kept"]]


def _frequent(column: np.ndarray, freq_cut: float, unique_cut: float) -> bool:
    counts = np.sort(np.unique(column[~np.isnan(column)], return_counts=True)[1])[::-1]
    return len(counts) > 1 and counts[1] / counts[0] >= freq_cut and len(counts) / len(column) >= unique_cut


def _uncorrelated(x: np.ndarray, threshold: float) -> np.ndarray:
    """bool (D,): False for the feature with the larger summed |correlation| in each pair correlated above `threshold`."""
    correlation = np.corrcoef(x, rowvar=False).reshape(x.shape[1], -1)
    order = np.abs(correlation).sum(0).argsort(kind="stable").argsort()
    above = correlation > threshold
    return ~(above & (order[:, None] > order[None, :])).any(1)
