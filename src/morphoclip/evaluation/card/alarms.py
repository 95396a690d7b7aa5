"""Alarms on unreliable scores: a collapsed encoder, ties, too few draws, normalisation fitted on scored wells."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.tasks.protocol import PlateSet
from morphoclip.evaluation.tasks.questions import Question
from morphoclip.evaluation.tasks.task import CONTROLLED

MEAN_COSINE, TIE_SHARE, SHUFFLED_EXCESS = 0.99, 0.01, 0.05
ENOUGH_NEGATIVES = 8
_SPREAD = 1e-5


def collapse(plate_set: PlateSet) -> str | None:
    """An alarm if all wells have the same direction after centring each plate on its negative controls."""
    x = plate_set.values().astype(np.float64)
    if not np.isfinite(x).all():
        return None  # `average_precision` refuses such rows by name
    scale = np.abs(x).max()
    centred = x / scale if scale else x
    spread = float(np.linalg.norm(centred - centred.mean(axis=0))) / max(float(np.linalg.norm(centred)), 1e-300)
    if spread < _SPREAD:
        return f"collapse: all profiles of {plate_set.name} are equal (relative spread {spread:.0e})"
    plates = plate_set.table[schema.PLATE].to_numpy()
    negcon = schema.is_negcon(plate_set.table)
    for plate in np.unique(plates):
        own = plates == plate
        centred[own] -= centred[own & negcon if (own & negcon).any() else own].mean(axis=0)
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


def few_negatives(rows: pd.DataFrame, question: Question, folds: int) -> str | None:
    """An alarm where a query is ranked against fewer than ENOUGH_NEGATIVES rows; `rows` are those of all folds."""
    number = (rows["n_total_pairs"] - rows["n_pos_pairs"]).to_numpy(int)
    few = rows[number < ENOUGH_NEGATIVES]
    if few.empty:
        return None
    worst, fewest = rows.iloc[number.argmin()], number.min()
    half = " (half of them, by cross-fitting)" if folds > 1 else ""
    start = f"few negatives: {question.task.name}, {question.subset}: "
    if question.task.negatives in CONTROLLED:
        plates = few[schema.PLATE].nunique()
        return (
            f"{start}{plates} plates have fewer than {ENOUGH_NEGATIVES} negative controls to rank against, plate "
            f"{worst[schema.PLATE]} has {fewest}{half}: such scores are high by chance and coarse; set negatives=set "
            "or others, or crossfit=false with a normalisation that is not fitted on controls"
        )
    return (
        f"{start}{len(few)} of {len(rows)} queries meet fewer than {ENOUGH_NEGATIVES} negatives, the fewest "
        f"{fewest} ({worst[schema.PERTURBATION]}): such scores are high by chance"
    )


def ties(task: str, subset: str, share: float) -> str | None:
    if share > TIE_SHARE:
        return f"ties: {share:.1%} of the positive-negative pairs of {task}, {subset} are tied"
    return None


def coarse_null(task: str, subset: str, smallest_p: float, tests: int, threshold: float) -> str | None:
    """An alarm if a single smallest p-value among `tests` could not pass Benjamini-Hochberg."""
    if smallest_p > threshold / tests:
        return (
            f"draws: the smallest p of {task}, {subset} is {smallest_p:.2g}, above {threshold:g}/{tests}, so no row can "
            f"be retrieved alone: set null_size to {math.ceil(tests / threshold)} or more"
        )
    return None


def shuffled_labels(plain: float, crossfitted: float, chance: float, crossfit_chance: float) -> str | None:
    """An alarm if shuffled labels score further above chance without cross-fitted normalisation than with it.

    Strong treatments raise the score of shuffled labels too, since all differ from controls; so the two are compared.
    """
    excess = (plain - chance) / (1 - chance)
    honest = (crossfitted - crossfit_chance) / (1 - crossfit_chance)
    if excess > honest + SHUFFLED_EXCESS:
        return (
            f"cross-fit: shuffled labels score {plain:.3f} (chance {chance:.3f}), but {crossfitted:.3f} (chance "
            f"{crossfit_chance:.3f}) with cross-fitting: normalisation was fitted on the negative controls that are "
            "scored against; set crossfit=true"
        )
    return None
