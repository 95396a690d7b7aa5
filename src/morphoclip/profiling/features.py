"""Features written once, and profiles of bags of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from morphoclip.data import schema
from morphoclip.data.dataset import ShardDataset
from morphoclip.data.features import FeatureDataset, FeatureWriter, TableDataset
from morphoclip.profiling.crops import well_codes
from morphoclip.profiling.normalize import EMBEDDING_PREFIX

CONDITION = [schema.PERTURBATION, schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT, schema.DOSE]


@torch.inference_mode()
def write_features(
    encoder: nn.Module,
    dataset: ShardDataset,
    folder: str | Path,
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    dtype: str = "float16",
    progress: bool = True,
) -> Path:
    """Write the features of every crop of a dataset once, as a folder that `FeatureDataset` reads.

    Args:
        encoder: as DESIGN §3.4. A `per_channel` encoder gives (C, D) a crop; any other one vector, (1, D).
        dataset: without a split.
        folder: to make.
        dtype: stored; float16 halves the disk.

    Raises:
        FileExistsError: the folder is there.
        ValueError: a feature is not finite, in float16 too.
    """
    from tqdm import tqdm

    shape = getattr(encoder.backbone, "feature_shape", None) if hasattr(encoder, "backbone") else None
    shape = tuple(shape or (1, encoder.embed_dim))
    encoder.to(device).eval()
    print(f"writes {len(dataset)} x {shape[0]} x {shape[1]} features to {folder}")
    made_by = {"encoder": getattr(encoder, "config", {}), "scaling": list(dataset.scaling)}
    with (
        FeatureWriter(folder, dataset, shape, made_by, dtype) as writer,
        tqdm(total=len(dataset), unit="crop", desc="features", disable=not progress) as bar,
    ):
        for start in range(0, len(dataset), batch_size):
            rows = np.arange(start, min(start + batch_size, len(dataset)))
            low, high = dataset.intensities(rows)
            pixels = (torch.from_numpy(values).to(device) for values in (dataset.read(rows), low, high))
            features = (
                encoder(encoder.preprocess(*pixels)).float().cpu().numpy().reshape(len(rows), *shape).astype(dtype)
            )
            if not np.isfinite(features).all():
                raise ValueError(f"crops {start} to {rows[-1]} have features beyond {dtype}: store float32")
            writer.write(rows, features)
            bar.update(len(rows))
    return Path(folder)


@torch.inference_mode()
def embed_features(
    encoder: nn.Module,
    dataset: FeatureDataset | TableDataset,
    level: str = "well",
    *,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """A profile table of bags of cached features: all crops of a well, or all wells of a condition, are one bag.

    Args:
        encoder: a `FeatureEncoder`; it is moved to `device` and put back in the mode it was in.
        level: `well` or `perturbation` (a row a condition).
        batch_size: bags at a time.

    Returns:
        Metadata that the rows of a bag agree on, then float32 features `embedding_0000`, …
    """
    if level not in ("well", "perturbation"):
        raise ValueError(f"level {level!r} is neither well nor perturbation")
    fields = dataset.fields
    if level == "well":
        group = well_codes(fields)
    else:
        group = fields.groupby([c for c in CONDITION if c in fields], sort=True, dropna=False).ngroup().to_numpy()
    code = group[dataset.fields_of(np.arange(len(dataset)))]
    order = np.argsort(code, kind="stable")
    bags = np.split(order, np.flatnonzero(np.diff(code[order])) + 1)
    training = encoder.training
    encoder.to(device).eval()
    rows = []
    for start in range(0, len(bags), batch_size):
        chunk = bags[start : start + batch_size]
        mask = np.arange(max(map(len, chunk))) < np.array([[len(bag)] for bag in chunk])
        features = np.zeros((*mask.shape, *dataset.shape), np.float32)
        features[mask] = dataset.read(np.concatenate(chunk))
        x = encoder.preprocess(torch.from_numpy(features).to(device))
        rows.append(encoder(x, torch.from_numpy(mask).to(device)).float().cpu().numpy())
    encoder.train(training)
    kept = [c for c in fields if c.startswith(schema.PREFIX) and c != schema.SITE]
    groups = fields[kept].groupby(group, sort=True)
    metadata = groups.first().where(groups.nunique() <= 1, "").loc[np.unique(code)].reset_index(drop=True)
    names = [f"{EMBEDDING_PREFIX}{i:04d}" for i in range(encoder.embed_dim)]
    return pd.concat([metadata.fillna("").astype(str), pd.DataFrame(np.concatenate(rows), columns=names)], axis=1)
