"""The map of well profiles that a report shows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip import schema


def umap_coordinates(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame | None:
    """UMAP of well profiles as Kim et al. 2025: 200 principal components, correlation, 50 neighbours, distance .7.

    Sets of plates may have different features (a selection made a set at a time), which leaves NaN where they are put
    below each other: the map rests on the features that are complete over all rows.

    Returns:
        x, y and the metadata `write_report` wants, in the rows' order. One thread, so that a seed means something.
        None where fewer than three rows or two complete features leave nothing to draw.
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
    place = model.fit_transform(x)
    keep = [
        c
        for c in (schema.PLATE, schema.WELL, schema.PERTURBATION, schema.NAME, schema.GENE, schema.CONTROL_TYPE)
        if c in metadata
    ]
    return table[keep].reset_index(drop=True).assign(x=place[:, 0], y=place[:, 1])
