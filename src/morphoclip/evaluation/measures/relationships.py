"""Recall of known gene-gene relationships among the most extreme similarities (EFAAR benchmarking, Celik et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.measures.mean_profiles import mean_profiles, perturbs_genes
from morphoclip.evaluation.measures.row import Detail, Note, Row
from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol

SOURCES = ("CORUM", "HuMAP", "Reactome", "SIGNOR", "StringDB")
FEWEST_GENES = 20  # EFAAR benchmarking leaves out a source with fewer genes
CHANCE = 0.1


def relationships(
    sets: Sequence[PlateSet], protocol: Protocol, *, relationships_folder: str | Path | None = None, **_: object
) -> Iterator[Row | Detail | Note]:
    """Recall of annotated gene pairs among the 5 % most similar and the 5 % most opposite of all gene pairs.

    A gene's profile is the mean over all wells of all its reagents, without negative controls (EFAAR benchmarking:
    normalise on the controls first, `normalize=tvn`). `recall_mean` is the mean over the sources.

    Args:
        relationships_folder: folder with CORUM.txt, HuMAP.txt, …: `relationships=` of evaluate.py.
    """
    if relationships_folder is None:
        raise ValueError("task relationships needs relationships=<folder with CORUM.txt, HuMAP.txt, …>")
    pairs = read_relationships(relationships_folder)
    of_genes = [plate_set for plate_set in sets if perturbs_genes(plate_set) and schema.GENE in plate_set.table]
    if not of_genes:
        yield Note(f"relationships: no set of CRISPR or ORF plates with {schema.GENE}, nothing is scored")
    for plate_set in of_genes:
        profiles = mean_profiles(plate_set, schema.GENE)
        found = relationship_recall(profiles.values(), profiles.table[schema.GENE].tolist(), pairs)
        for row in found.itertuples():
            yield Row(plate_set.name, f"recall_{row.source}", float(row.recall), int(row.n_pairs), CHANCE)
            if row.n_genes < FEWEST_GENES:
                yield Note(f"relationships, {plate_set.name}: only {row.n_genes} genes of {row.source} have a profile")
        known = found[found["n_pairs"] > 0]
        if len(known):
            yield Row(plate_set.name, "recall_mean", float(known["recall"].mean()), int(known["n_pairs"].sum()), CHANCE)
        yield Detail(found.assign(subset=plate_set.name)[["subset", *found.columns]])


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

    As in EFAAR benchmarking (Celik et al. 2024): a pair is found if at most 5 % of all pairs have a cosine as low as its
    own or lower, or at least 95 % have a lower one. All pairs are compared, not a sample of them.

    Args:
        features: (N, D), one profile per gene. genes: N distinct names.

    Returns:
        source, recall, low_tail, high_tail, n_pairs, n_genes; NaN if no annotated pair has both genes.

    Raises:
        ValueError: a gene occurs twice.
    """
    names = np.asarray(genes, dtype=str)
    if len(set(names)) < len(names):
        raise ValueError("relationship recall needs one profile per gene: take mean profiles by gene first")
    x = unit_rows(checked_features(features))
    similarity = x @ x.T
    everyone = np.sort(similarity[np.triu_indices(len(x), 1)])
    row_of = {gene: i for i, gene in enumerate(names)}
    rows = []
    for source, known in pairs.items():
        here = np.array([(row_of[a], row_of[b]) for a, b in sorted(known) if a in row_of and b in row_of], int)
        here = here.reshape(-1, 2)
        values = similarity[here.min(axis=1), here.max(axis=1)]
        below = np.searchsorted(everyone, values, side="right") / len(everyone) <= tails[0]
        above = np.searchsorted(everyone, values, side="left") / len(everyone) >= tails[1]
        low, high = (below.mean(), above.mean()) if len(values) else (np.nan, np.nan)
        rows.append((source, low + high, low, high, len(values), len(np.unique(here))))
    return pd.DataFrame(rows, columns=["source", "recall", "low_tail", "high_tail", "n_pairs", "n_genes"])
