"""Gene families: do profiles of genes of one HGNC group find each other? (Kim et al. 2025, JUMP ORF)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from morphoclip import schema
from morphoclip.evaluation.measures.batches import batches_of
from morphoclip.evaluation.measures.clustering import agreement_of_clusters, families_of_best
from morphoclip.evaluation.measures.families import GENE_GROUP, families_of, of_size, read_families
from morphoclip.evaluation.measures.mean_profiles import mean_profiles, perturbs_genes, row_centred
from morphoclip.evaluation.measures.neighbours import f1_over_k, nearest_neighbour_accuracy
from morphoclip.evaluation.measures.row import NOTHING, Detail, Note, Row
from morphoclip.evaluation.ranking.average_precision import average_precision
from morphoclip.evaluation.ranking.chance import expected_average_precision
from morphoclip.evaluation.ranking.intervals import cluster_interval
from morphoclip.evaluation.ranking.table import ranked
from morphoclip.evaluation.tasks.protocol import PlateSet, Protocol

_LABEL = "_label"
_SHUFFLES = 5


def gene_families(
    sets: Sequence[PlateSet],
    protocol: Protocol,
    *,
    seed: int = 0,
    families: str | Path | None = None,
    minimum: int = 4,
    ks: Sequence[int] = tuple(range(1, 50, 2)),
    sizes: Sequence[int] = (4, 10),
    top: int = 20,
    **_: object,
) -> Iterator[Row | Detail | Note]:
    """Gene families of mean profiles by perturbation: mAP, NSBP accuracy, F1 at k, and AMI of clusters with the families.

    As in Kim et al. 2025 and the code released with it: groups of at least `minimum` reagents; profiles are means over
    wells, compared by correlation; F1 at k combines the means of precision and recall, k = 1, 3, …, 49; clusters by
    complete linkage of Euclidean distances between the rows of the correlation matrix; of families with 4 to 10 members,
    the 20 that score best under the method itself (`ami_top20`). NSBP compares wells by cosine.

    Ours, because the paper does not say: a gene of several groups counts in each (one query per group; negatives share no
    group), but is left out of the AMI if several of its groups are chosen; only members of the families are candidates;
    NSBP excludes all wells of the query's batch and perturbation (the released code standardises features first, and
    excludes wells at the same position and those of the batch with the same label); `ami` uses all families of 4 to 10
    members, the same for every method; the chance of `ami_top20` is that of shuffled profiles, whose best 20 are chosen
    in the same way.

    Args:
        families: table of symbols and groups (`read_families`); default: the column Metadata_gene_group.
        sizes: smallest and largest family of the AMI.
    """
    known = None if families is None else read_families(families)
    scored = [plate_set for plate_set in sets if perturbs_genes(plate_set)]
    if not scored:
        yield Note("gene_families: there is no set of CRISPR or ORF plates, nothing is scored")
    for plate_set in scored:
        profiles = mean_profiles(plate_set)
        labels = families_of(profiles.table, known)
        large = of_size(labels, minimum)
        labels = [row & large for row in labels]
        member = np.array([bool(row) for row in labels])
        if len(large) < 2:
            yield Note(f"gene_families, {plate_set.name}: fewer than two families have {minimum} members, not scored")
            continue
        if not member.all():
            example = profiles.table.loc[~member, schema.PERTURBATION].iloc[0]
            yield Note(
                f"gene_families, {plate_set.name}: {int((~member).sum())} of {len(member)} perturbations, e.g. {example}, "
                f"are in no family of {minimum} or more and left out; {len(large)} families are scored"
            )
        table = profiles.table[member].reset_index(drop=True)
        labels = [row for row in labels if row]
        x = row_centred(table[profiles.features].to_numpy())
        try:
            queries = _queries(x, labels)
        except ValueError as error:
            yield Note(f"gene_families, {plate_set.name}: not scored, {error}")
            continue
        by_family = _by_family(queries, labels)
        name, n = plate_set.name, len(queries)
        low, high = cluster_interval(queries["average_precision"].to_numpy(), queries[_LABEL], seed=seed)
        yield Row(
            name, "mean_average_precision", queries["average_precision"].mean(), n, queries["chance"].mean(), low, high
        )
        yield from _nsbp(plate_set, dict(zip(table[schema.PERTURBATION], labels, strict=True)), protocol)
        for k, f1 in f1_over_k(x, labels, ks):
            yield Row(name, f"f1_at_{k}", f1, len(labels), NOTHING)
        small = of_size(labels, *sizes)
        best = _best(queries, small, top)
        for metric, chosen, chance in (
            ("ami", small, 0.0),
            (f"ami_top{top}", best, _chance_of_best(x, labels, small, top, seed)),
        ):
            agreement, members = agreement_of_clusters(x, labels, chosen)
            if members:
                yield Row(name, metric, agreement, members, chance)
        if not small:
            yield Note(f"gene_families, {name}: no family has {sizes[0]} to {sizes[1]} members, no AMI")
        by_family[f"in_top{top}"] = by_family[GENE_GROUP].isin(best)
        yield Detail(by_family.assign(subset=name)[["subset", *by_family.columns]])


def _queries(x: np.ndarray, labels: Sequence[set[str]]) -> pd.DataFrame:
    """One row per (profile, family): _label, average_precision, chance."""
    meta = pd.DataFrame({_LABEL: pd.Series([sorted(row) for row in labels], dtype=object)})
    rows = ranked(average_precision(meta, x, [_LABEL], [], [], [_LABEL], multilabel_col=_LABEL))
    return rows.assign(chance=expected_average_precision(rows["n_pos_pairs"], rows["n_total_pairs"]))


def _by_family(queries: pd.DataFrame, labels: Sequence[set[str]]) -> pd.DataFrame:
    """Metadata_gene_group, n_members, mean_average_precision, chance; best family first."""
    sizes = pd.Series([family for row in labels for family in row]).value_counts()
    means = queries.groupby(_LABEL)[["average_precision", "chance"]].mean()
    means = means.rename(columns={"average_precision": "mean_average_precision"}).rename_axis(GENE_GROUP).reset_index()
    means.insert(1, "n_members", means[GENE_GROUP].map(sizes))
    return means.sort_values("mean_average_precision", ascending=False, kind="stable", ignore_index=True)


def _nsbp(plate_set: PlateSet, labels: dict[str, set[str]], protocol: Protocol) -> Iterator[Row]:
    """NSBP accuracy of the family of the wells of `labels` (perturbation -> families), for each column of batches."""
    member = plate_set.table[schema.PERTURBATION].isin(labels).to_numpy() & ~schema.is_negcon(plate_set.table)
    wells, x = plate_set.table[member], plate_set.values()[member]
    own = [labels[name] for name in wells[schema.PERTURBATION]]
    for batch, suffix in batches_of(wells, protocol):
        accuracy, chance, n = nearest_neighbour_accuracy(x, own, batch, wells[schema.PERTURBATION])
        yield Row(plate_set.name, f"nsbp{suffix}", accuracy, n, chance)


def _best(queries: pd.DataFrame, small: set[str], top: int) -> set[str]:
    rows = queries[queries[_LABEL].isin(small)]
    return set(families_of_best(rows["average_precision"].tolist(), rows[_LABEL].tolist(), top))


def _chance_of_best(x: np.ndarray, labels: Sequence[set[str]], small: set[str], top: int, seed: int) -> float:
    """Mean AMI of the best `top` families of profiles that are shuffled among the genes."""
    found = []
    for i in range(_SHUFFLES):
        shuffled = x[np.random.default_rng([seed, i]).permutation(len(x))]
        agreement, members = agreement_of_clusters(shuffled, labels, _best(_queries(shuffled, labels), small, top))
        found += [agreement] if members else []
    return float(np.mean(found)) if found else NOTHING
