"""Scores besides average precision, for a set of plates or a pair of sets; each is a row of metrics.csv."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from morphoclip import chemistry, schema
from morphoclip.evaluation.measures.batch_effects import batch_scores, cell_count_correlation
from morphoclip.evaluation.measures.batches import batches_of
from morphoclip.evaluation.measures.bioactivity import bioactivity
from morphoclip.evaluation.measures.clustering import cluster_agreement
from morphoclip.evaluation.measures.gene_families import gene_families
from morphoclip.evaluation.measures.neighbours import (
    nearest_neighbour_accuracy,
    precision_at_k,
    threshold_grid_precision,
)
from morphoclip.evaluation.measures.probes import mechanism_probe
from morphoclip.evaluation.measures.relationships import relationships
from morphoclip.evaluation.measures.retrieval import recall_at_k
from morphoclip.evaluation.measures.row import NOTHING, Detail, Note, Row
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol, cross_pairs
from morphoclip.evaluation.tasks.questions import LABEL, consensus, with_labels

KS = (1, 5, 10)


def neighbours(sets: Sequence[PlateSet], protocol: Protocol, **_: object) -> Iterator[Row]:
    """NSB and NSBP of treated wells; precision and F1 at k and over a grid of distances for targets of consensus profiles."""
    for plate_set in sets:
        labelled = with_labels(plate_set, protocol)
        treated = ~schema.is_negcon(labelled)
        wells, x = labelled[treated], plate_set.values()[treated]
        for batch, suffix in batches_of(wells, protocol):
            own = [{p} for p in wells[schema.PERTURBATION]]
            value, chance, n = nearest_neighbour_accuracy(x, own, batch)
            yield Row(plate_set.name, f"nsb{suffix}", value, n, chance)
            targets = [set(labels) for labels in wells[LABEL]]
            value, chance, n = nearest_neighbour_accuracy(x, targets, batch, wells[schema.PERTURBATION])
            yield Row(plate_set.name, f"nsbp{suffix}", value, n, chance)
        profiles = _consensus(plate_set)
        targets = [set(labels) for labels in with_labels(profiles, protocol)[LABEL]]
        area, chance, n = threshold_grid_precision(profiles.values(), targets)
        yield Row(plate_set.name, "threshold_grid_precision", area, n, chance)
        for k in KS:
            if len(targets) > k:
                precision, f1, chance, n = precision_at_k(profiles.values(), targets, k)
                yield Row(plate_set.name, f"precision_at_{k}", precision, n, chance)
                yield Row(plate_set.name, f"f1_at_{k}", f1, n, NOTHING)


def clustering(sets: Sequence[PlateSet], protocol: Protocol, **_: object) -> Iterator[Row]:
    """AMI of complete-linkage clusters of consensus profiles against the genes (annotated, at least two reagents)."""
    for plate_set in sets:
        profiles = _consensus(plate_set)
        if schema.GENE not in profiles.table:
            continue
        genes = profiles.table[schema.GENE].fillna("")
        several = (genes.map(genes.value_counts()) > 1) & (genes != "")
        if genes[several].nunique() > 1:
            agreement = cluster_agreement(profiles.values()[several.to_numpy()], genes[several].tolist())
            yield Row(plate_set.name, "ami_of_genes", agreement, int(several.sum()), 0.0)


def batch_effects(sets: Sequence[PlateSet], protocol: Protocol, *, seed: int = 0, **_: object) -> Iterator[Row]:
    """Batch metrics of all wells, and the correlation of DMSO wells' leading components with cell count."""
    for plate_set in sets:
        for batch, suffix in batches_of(plate_set.table, protocol):
            for row in batch_scores(plate_set.values(), batch, seed).itertuples():
                yield Row(plate_set.name, f"{row.metric}{suffix}", row.value, len(batch), row.chance)
        negcon = schema.is_negcon(plate_set.table)
        if schema.CELL_COUNT in plate_set.table and negcon.sum() > 5:
            counts = pd.to_numeric(plate_set.table.loc[negcon, schema.CELL_COUNT]).to_numpy()
            for i, value in enumerate(cell_count_correlation(plate_set.values()[negcon], counts), 1):
                yield Row(plate_set.name, f"cell_count_correlation_pc{i}", float(value), int(negcon.sum()), NOTHING)


def retrieval(sets: Sequence[PlateSet], protocol: Protocol, **_: object) -> Iterator[Row]:
    """R@k from compounds to their target genes and back, with one consensus profile per compound and per gene."""
    for a, b in cross_pairs(sets, "compound", ("crispr", "orf")):
        shared = [f for f in a.features if f in set(b.features)]
        compounds = _consensus(a)
        other = _consensus(b)
        genes, names = _by_gene(PlateSet(other.name, other.key, other.table, shared))
        row_of = {gene: i for i, gene in enumerate(names)}
        right = [[row_of[g] for g in labels if g in row_of] for labels in with_labels(compounds, protocol)[LABEL]]
        asking = [i for i, found in enumerate(right) if found]
        if not asking:
            continue
        x = compounds.values(shared)
        yield from _retrieved(
            f"{a.name}-{b.name}", "compound_to_gene", x[asking], genes, [right[i] for i in asking], names
        )
        back: dict[int, list[int]] = {}
        for i in asking:
            for gene in right[i]:
                back.setdefault(gene, []).append(i)
        order = sorted(back)
        structures = compounds.table[schema.PERTURBATION].tolist()
        yield from _retrieved(
            f"{a.name}-{b.name}", "gene_to_compound", genes[order], x, [back[g] for g in order], structures
        )


def mechanism(sets: Sequence[PlateSet], protocol: Protocol, *, seed: int = 0, **_: object) -> Iterator[Row]:
    """Linear probe of the mechanism of action on consensus profiles of compounds; the doses of a molecule stay together."""
    for plate_set in sets:
        if plate_set.modality != "compound" or schema.MOA not in plate_set.table:
            continue
        profiles = _consensus(plate_set)
        first = profiles.table[schema.MOA].fillna("").str.split("|").str[0]
        try:
            found = mechanism_probe(
                profiles.values(), first.tolist(), chemistry.molecules(profiles.table).tolist(), seed=seed
            )
        except ValueError as error:
            raise ValueError(f"task mechanism, set {plate_set.name}: {error}") from error
        yield Row(plate_set.name, "mechanism_accuracy", found["accuracy"], int(found["n"]), found["chance"])
        yield Row(plate_set.name, "mechanism_macro_f1", found["macro_f1"], int(found["n"]), NOTHING)


BATTERY: dict[str, Callable[..., Iterator[Row | Detail | Note]]] = {
    "neighbours": neighbours,
    "clustering": clustering,
    "batch_effects": batch_effects,
    "relationships": relationships,
    "retrieval": retrieval,
    "mechanism": mechanism,
    "gene_families": gene_families,
    "bioactivity": bioactivity,
}


def _retrieved(
    subset: str, name: str, queries: np.ndarray, candidates: np.ndarray, right: list[list[int]], names: Sequence[str]
) -> Iterator[Row]:
    few = len(candidates) < 100
    for row in recall_at_k(queries, candidates, right, KS, names=names).itertuples():
        label = f"{name}_recall_at_{row.k}" + (f"_of_{len(candidates)}" if few else "")
        yield Row(subset, label, float(row.recall), int(row.n_queries), float(row.chance))


def _consensus(plate_set: PlateSet) -> PlateSet:
    return consensus(plate_set, np.ones(len(plate_set.table), bool), None)


def _by_gene(profiles: PlateSet) -> tuple[np.ndarray, list[str]]:
    """Median over the reagents of each gene: (genes, D) and the sorted gene names."""
    table = profiles.table[profiles.table[schema.GENE].fillna("") != ""]
    medians = table.groupby(schema.GENE, sort=True)[profiles.features].median()
    return medians.to_numpy(), medians.index.tolist()
