"""Recall of known gene-gene relationships among the most extreme similarities (EFAAR benchmarking, Celik et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows

SOURCES = ("CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB")


def read_relationships(folder: str | Path) -> dict[str, set[tuple[str, str]]]:
    """Source -> set of gene pairs (sorted within a pair), from `<source>.txt` files with columns entity1, entity2.

    Raises:
        FileNotFoundError: the folder holds none of the sources.
    """
    folder = Path(folder)
    found = {name: folder / f"{name}.txt" for name in SOURCES if (folder / f"{name}.txt").is_file()}
    if not found:
        raise FileNotFoundError(
            f"{folder} holds none of {[f'{n}.txt' for n in SOURCES]}: see docs/evaluation.md for where they come from"
        )
    pairs = {}
    for name, path in found.items():
        table = pd.read_csv(path, dtype=str)
        columns = table.columns[:2] if not {"entity1", "entity2"} <= set(table) else ["entity1", "entity2"]
        rows = table[list(columns)].dropna().to_numpy()
        pairs[name] = {(min(a, b), max(a, b)) for a, b in rows if a != b}
    return pairs


def relationship_recall(
    features: np.ndarray,
    genes: Sequence[str],
    pairs: dict[str, set[tuple[str, str]]],
    tails: tuple[float, float] = (0.05, 0.95),
) -> pd.DataFrame:
    """Fraction of annotated pairs with a cosine in the tails (5 % each) of the cosines of all pairs; chance is .10.

    Args:
        features: (N, D), one profile per gene. genes: N distinct names.

    Returns:
        source, recall, low_tail, high_tail, n_pairs; NaN if no annotated pair has both genes.

    Raises:
        ValueError: a gene occurs twice.
    """
    names = np.asarray(genes, dtype=str)
    if len(set(names)) < len(names):
        raise ValueError("relationship recall needs one profile per gene: take consensus profiles by gene first")
    x = unit_rows(checked_features(features))
    similarity = x @ x.T
    upper = np.triu_indices(len(x), 1)
    low, high = np.quantile(similarity[upper], tails)
    row = {gene: i for i, gene in enumerate(names)}
    rows = []
    for source, known in pairs.items():
        here = [(row[a], row[b]) for a, b in sorted(known) if a in row and b in row]
        values = np.array([similarity[i, j] for i, j in here])
        below, above = ((values <= low).mean(), (values >= high).mean()) if len(values) else (np.nan, np.nan)
        rows.append((source, below + above, below, above, len(values)))
    return pd.DataFrame(rows, columns=["source", "recall", "low_tail", "high_tail", "n_pairs"])
