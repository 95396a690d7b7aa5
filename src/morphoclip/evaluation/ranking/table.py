"""The table of average precisions, in copairs' columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.chance import expected_average_precision


def ranked(ap: pd.DataFrame) -> pd.DataFrame:
    """The rows of an AP table with at least one positive and one negative."""
    return ap[ap["average_precision"].notna() & (ap["n_total_pairs"] > ap["n_pos_pairs"])]


def ap_table(
    meta: pd.DataFrame,
    rows: np.ndarray,
    n_pos: np.ndarray,
    n_neg: np.ndarray,
    ap: np.ndarray,
    tied: np.ndarray,
    wanted: np.ndarray,
) -> pd.DataFrame:
    """`meta` at `rows` with copairs' columns; ValueError if no query has both a positive and a negative."""
    paired = (n_pos > 0) & (n_neg > 0)
    if not (paired & wanted[rows]).any():
        lacking = "positive" if not (n_pos[wanted[rows]] > 0).any() else "negative"
        raise ValueError(f"no profile has a {lacking} pair under these rules: check the sameby and diffby columns")
    chance = expected_average_precision(n_pos, n_pos + n_neg)
    with np.errstate(divide="ignore", invalid="ignore"):
        normalized = np.where(ap == chance, 0.0, (ap - chance) / (1 - chance))  # without negatives chance is 1
        tie_share = tied / (n_pos * n_neg)
    return meta.iloc[rows].assign(
        n_pos_pairs=n_pos,
        n_total_pairs=n_pos + n_neg,
        average_precision=ap,
        normalized_average_precision=normalized,
        tie_share=tie_share,
    )


def row_name(meta: pd.DataFrame, row: int) -> str:
    columns = [c for c in ("Metadata_Plate", "Metadata_Well", "Metadata_perturbation") if c in meta]
    return " ".join(str(meta[c].iloc[row]) for c in columns) or f"row {row}"
