"""The UMAP of well profiles for the report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema


def umap_coordinates(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame | None:
    """UMAP of well profiles as in Kim et al. 2025: 200 principal components, correlation, 50 neighbours, distance .7.

    Sets of plates may have different features (after feature selection per set), which gives NaN in the joined table:
    the map uses the features that are complete over all rows.

    Returns:
        x, y and the metadata for `write_report`, in the order of the rows; None with fewer than three rows or two
        complete features. It runs on one thread, so that the seed determines the result.
    """
    metadata, features = schema.split_columns(table)
    x = table[features].dropna(axis="columns").to_numpy(np.float64)
    if x.shape[0] < 3 or x.shape[1] < 2:
        return None

    import umap
    from sklearn.decomposition import PCA

    x = PCA(min(200, *x.shape), random_state=seed).fit_transform(x)
    neighbours = min(50, len(x) - 1)
    model = umap.UMAP(
        n_neighbors=neighbours, min_dist=0.7, metric="correlation", random_state=seed, n_jobs=1, init="pca"
    )
    coordinates = model.fit_transform(x)
    keep = [
        c
        for c in (schema.PLATE, schema.WELL, schema.PERTURBATION, schema.NAME, schema.GENE, schema.CONTROL_TYPE)
        if c in metadata
    ]
    return table[keep].reset_index(drop=True).assign(x=coordinates[:, 0], y=coordinates[:, 1])
