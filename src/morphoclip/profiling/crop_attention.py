"""The attention weight of each crop in the embedding of its well."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from morphoclip import schema
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.export.crop_pool import check_attends, load_crop_pool
from morphoclip.files import write_atomically
from morphoclip.models import Encoder, FeatureEncoder
from morphoclip.models.pooling import Pool
from morphoclip.profiling.crops import well_codes


@torch.inference_mode()
def crop_attention(
    encoder: Encoder | FeatureEncoder,
    dataset: ShardDataset,
    pool: Pool | None = None,
    wells: Collection[tuple[str, str]] | None = None,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """The weight of every crop in the bag of its well.

    Args:
        encoder: an encoder of crops in the joint space (`method.image.export=joint`), or a `FeatureEncoder` with its
            `FeatureDataset`.
        pool: the pool for an encoder of crops: `load_crop_pool(...)` or a method's `pool`.
        wells: (plate, well) pairs; None for all.

    Returns:
        One row per crop: the metadata of its field, `Metadata_crop_y`, `_crop_x`, `Metadata_crop` (its row in the
        dataset's index), and `attention`, which sums to 1 over a well. For cached features there are weights per channel,
        `attention_<channel>`, and `attention` is their mean.

    Raises:
        ValueError: crops are averaged with equal weights.
    """
    check_attends(encoder, pool)
    reads_features = isinstance(encoder, FeatureEncoder)
    pool = encoder.pool if isinstance(encoder, FeatureEncoder) else pool
    assert pool is not None  # `check_attends` refuses None
    field = dataset.fields_of(np.arange(len(dataset)))
    code = well_codes(dataset.fields)[field]
    items = np.arange(len(dataset))
    if wells is not None:
        named = pd.MultiIndex.from_frame(dataset.fields[[schema.PLATE, schema.WELL]])
        items = items[named.isin(list(wells))[field]]
    encoder.to(device).eval()
    pool.to(device)
    scores = []
    for chunk in np.array_split(items, max(1, -(-len(items) // batch_size))):
        given = (dataset.read(chunk),) if reads_features else (dataset.read(chunk), *dataset.intensities(chunk))
        x = encoder.preprocess(*(torch.from_numpy(part).to(device) for part in given))  # (n, C, D) or (n, C, H, W)
        scores.append(pool.scores(x if reads_features else encoder(x)).float().cpu().numpy())
    weights = _softmax_by(code[items], np.concatenate(scores).reshape(len(items), -1))
    rows = dataset.rows_of(items)
    kept = [c for c in dataset.fields if c.startswith(schema.PREFIX)]
    table = dataset.fields.iloc[field[items]][kept].reset_index(drop=True)
    table = table.astype(object).where(table.notna(), "").astype(str)
    table["Metadata_crop_y"], table["Metadata_crop_x"] = dataset.index["y"][rows], dataset.index["x"][rows]
    table["Metadata_crop"] = rows
    table["attention"] = weights.mean(1)
    if weights.shape[1] > 1:
        table = table.assign(**{f"attention_{name}": weights[:, c] for c, name in enumerate(encoder.channels)})
    return table


def write_crop_attention(
    source: str | Path, encoder: Encoder | FeatureEncoder, dataset: str | Path, out: str | Path, device: str = "cpu"
) -> Path:
    """Write `crop_attention` of a whole dataset folder to Parquet; `source` is the path `encoder` was loaded from."""
    from morphoclip.profiling.embedding import open_dataset

    table = crop_attention(encoder, open_dataset(encoder, dataset), load_crop_pool(source), device=device)
    with write_atomically(out) as partial:
        table.to_parquet(partial, compression="zstd", index=False)
    return Path(out)


def _softmax_by(group: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Softmax of scores (N, C) over the rows of each group."""
    _, row = np.unique(group, return_inverse=True)
    top = np.full((row.max() + 1, scores.shape[1]), -np.inf)
    np.maximum.at(top, row, scores)
    e = np.exp(scores - top[row])
    total = np.zeros_like(top)
    np.add.at(total, row, e)
    return e / total[row]
