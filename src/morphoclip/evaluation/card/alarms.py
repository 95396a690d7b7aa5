"""Signs that a score should not be believed: a collapsed encoder, ties, statistics fitted on what is scored."""

from __future__ import annotations

import math

import numpy as np

from morphoclip import schema
from morphoclip.evaluation.tasks.protocol import PlateSet

MEAN_COSINE, TIE_SHARE, SHUFFLED_EXCESS = 0.99, 0.01, 0.05
_SPREAD = 1e-5


def collapse(plate_set: PlateSet) -> str | None:
    """An alarm when all wells point one way once each plate is centred on its negative controls."""
    x = plate_set.values().astype(np.float64)
    if not np.isfinite(x).all():
        return None  # `average_precision` refuses such rows by name
    scale = np.abs(x).max()
    centred = x / scale if scale else x
    spread = float(np.linalg.norm(centred - centred.mean(axis=0))) / max(float(np.linalg.norm(centred)), 1e-300)
    if spread < _SPREAD:
        return f"collapse: the profiles of {plate_set.name} are one and the same (relative spread {spread:.0e})"
    plates = plate_set.table[schema.PLATE].to_numpy()
    negcon = schema.is_negcon(plate_set.table)
    for plate in np.unique(plates):
        centred[plates == plate] -= centred[(plates == plate) & negcon].mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1)
    treated = centred[~negcon & (lengths > 0)]
    if len(treated) < 2:
        return f"collapse: treated wells of {plate_set.name} equal the mean of their plate's negative controls"
    unit = treated / np.linalg.norm(treated, axis=1, keepdims=True)
    n = len(unit)
    cosine = (np.square(unit.sum(axis=0)).sum() - n) / (n * (n - 1))
    if cosine > MEAN_COSINE:
        return f"collapse: treated wells of {plate_set.name} have mean cosine {cosine:.4f} after centring on controls"
    return None


def ties(task: str, subset: str, share: float) -> str | None:
    if share > TIE_SHARE:
        return f"ties: {share:.1%} of the positive-negative pairs of {task}, {subset} are tied"
    return None


def coarse_null(task: str, subset: str, smallest_p: float, tests: int, threshold: float) -> str | None:
    """An alarm when the best of `tests` p-values, were it the only small one, could not pass Benjamini-Hochberg."""
    if smallest_p > threshold / tests:
        return (
            f"draws: the smallest p of {task}, {subset} is {smallest_p:.2g}, above {threshold:g}/{tests}, so no row can "
            f"be retrieved by itself: set null_size to {math.ceil(tests / threshold)} or more"
        )
    return None


def shuffled_labels(plain: float, crossfitted: float, chance: float, crossfit_chance: float) -> str | None:
    """An alarm when shuffled labels score higher, above chance, than they do once normalisation is cross-fitted.

    Strong treatments lift shuffled labels too, all being unlike controls; so the two ways are compared, not one judged.
    """
    excess = (plain - chance) / (1 - chance)
    honest = (crossfitted - crossfit_chance) / (1 - crossfit_chance)
    if excess > honest + SHUFFLED_EXCESS:
        return (
            f"cross-fit: shuffled labels score {plain:.3f} where chance is {chance:.3f}, but {crossfitted:.3f} where "
            f"chance is {crossfit_chance:.3f} once cross-fitted: normalisation was fitted on the negative controls it is "
            "scored against; set crossfit=true"
        )
    return None
