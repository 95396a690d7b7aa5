"""Agreement of complete-linkage clusters of profiles with genes or gene families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from morphoclip.evaluation.ranking.similarity import checked_features, unit_rows


def cluster_agreement(features: np.ndarray, families: Sequence[str], clusters: int | None = None) -> float:
    """Adjusted mutual information of complete-linkage clusters (cosine distance) with `families`.

    Args:
        features: (N, D) consensus profiles. families: N names.
        clusters: number of clusters; default: the number of families.

    Raises:
        ValueError: fewer than two families, or fewer profiles than clusters.
    """
    from scipy.cluster.hierarchy import fcluster
    from sklearn.metrics import adjusted_mutual_info_score

    number = clusters or len(set(families))
    if len(set(families)) < 2 or len(features) < number:
        raise ValueError(
            f"{len(features)} profiles of {len(set(families))} families cannot be cut into {number} clusters"
        )
    labels = fcluster(linkage_tree(features), number, criterion="maxclust")
    return float(adjusted_mutual_info_score(list(families), labels))


def agreement_of_clusters(
    centred: np.ndarray, labels: Sequence[set[str]], chosen: Collection[str]
) -> tuple[float, int]:
    """AMI of as many complete-linkage clusters as there are `chosen` families with these families (Kim et al. 2025).

    Distances are Euclidean, between the rows of the correlation matrix of the members.

    Args:
        centred: (N, D) profiles minus their row means. labels: the families of each; members of several of `chosen` are
            left out, and then families with a single member.

    Returns:
        (AMI, number of profiles); (NaN, 0) with fewer than two families.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.metrics import adjusted_mutual_info_score

    own = [row & set(chosen) for row in labels]
    sizes = Counter(next(iter(row)) for row in own if len(row) == 1)
    rows = [i for i, row in enumerate(own) if len(row) == 1 and sizes[next(iter(row))] > 1]
    families = [next(iter(own[i])) for i in rows]
    number = len(set(families))
    if number < 2:
        return float("nan"), 0
    x = unit_rows(checked_features(centred[rows]))
    clusters = fcluster(linkage(x @ x.T, method="complete", metric="euclidean"), number, criterion="maxclust")
    return float(adjusted_mutual_info_score(families, clusters)), len(rows)


def linkage_tree(features: np.ndarray) -> np.ndarray:
    """Complete-linkage tree (N - 1, 4) of cosine distances, in scipy's format."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    x = unit_rows(checked_features(features).astype(np.float64))
    distance = np.clip(1 - x @ x.T, 0, 2)
    np.fill_diagonal(distance, 0)
    return linkage(squareform(distance, checks=False), method="complete")


def heat_map(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine similarities (N, N), rows and columns in the order of the tree's leaves, and that order (N,)."""
    from scipy.cluster.hierarchy import leaves_list

    order = leaves_list(linkage_tree(features))
    x = unit_rows(checked_features(features))[order]
    return x @ x.T, order


def families_of_best(scores: Sequence[float], families: Sequence[str], top: int = 20) -> list[str]:
    """Kim et al.'s variant: the `top` families with the highest mean score of their members under the method itself."""
    import pandas as pd

    means = pd.Series(list(scores)).groupby(list(families)).mean()
    return means.sort_values(ascending=False, kind="stable").index[:top].tolist()
