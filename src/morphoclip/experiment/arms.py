"""The arms of a finished training: well profiles by the trained encoder and by its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from morphoclip import schema

if TYPE_CHECKING:
    from morphoclip.data import CellDataModule, ShardDataset
    from morphoclip.data.loading.features import FeatureDataset
    from morphoclip.models import Encoder, FeatureEncoder

TRAINED, UNTRAINED, CEILING = "trained", "untrained encoder", "true phenotype (ceiling)"


def runs_own_code(encoder: DictConfig) -> bool:
    """Whether the encoder needs code from outside, chosen by the user: their own backbone, or `trust_remote_code`."""
    from morphoclip.models.factory import is_foreign

    return bool(encoder.get("trust_remote_code", False)) or is_foreign(str(encoder.name))


def image_dataset(dataset: ShardDataset) -> ShardDataset | None:
    """The dataset of images: `dataset`, or the one its features were computed from; None if there is none."""
    from morphoclip.data import ShardDataset
    from morphoclip.data.shards.manifest import MANIFEST

    made = dataset.manifest.get("features")
    if made is None:
        return dataset
    exists = "source" in made and (Path(made["source"]) / MANIFEST).is_file()
    return ShardDataset(made["source"], None, *made["scaling"]) if exists else None


def untrained_encoder(
    encoder: Encoder | FeatureEncoder, loader: CellDataModule, seed: int, *, crops: int = 1024, trust: bool = False
) -> Encoder | FeatureEncoder:
    """The architecture of `encoder` with fresh weights, in evaluation mode.

    Its batch norms get the statistics of training crops (or bags of features), like those of the trained encoder: a
    baseline without them would make training look better than it is.

    Args:
        loader: the training data of `encoder`.
        seed: seed of the weights and of the choice of `crops`.
        trust: run the code of a Hugging Face backbone; the config of an encoder cannot ask for that.
    """
    import torch

    from morphoclip.models import FeatureEncoder, create_encoder

    torch.manual_seed(seed)
    consent: dict[str, Any] = {"trust_remote_code": True} if trust and "backbone" in encoder.config else {}
    fresh = create_encoder(**encoder.config, **consent).train()
    for module in fresh.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a cumulative average over the batches
    if isinstance(fresh, FeatureEncoder):
        return _with_bag_statistics(fresh, loader)
    dataset = loader.mixture.datasets[0]
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:crops]
    with torch.no_grad():
        for part in np.array_split(chosen, max(1, len(chosen) // 128)):
            pixels, (low, high) = dataset.read(part), dataset.intensities(part)
            fresh(fresh.preprocess(*map(torch.from_numpy, (pixels, low, high))))
    return fresh.eval()


def _with_bag_statistics(encoder: FeatureEncoder, loader: CellDataModule, batches: int = 8) -> FeatureEncoder:
    """A feature encoder with mean and standard deviation of the training features and, for its batch norm, of bags."""
    import torch

    mean, std = loader.mixture.datasets[0].channel_statistics()
    encoder.mean.copy_(torch.from_numpy(mean))
    encoder.std.copy_(torch.from_numpy(std))
    with torch.no_grad():
        for batch in islice(loader.train_dataloader(), batches):
            encoder(encoder.preprocess(batch.tensor("features")), batch.mask)
    return encoder.eval()


def given_arms(score: DictConfig) -> dict[str, str]:
    """Name -> preset of the given profiles, for a run on profile tables: `score.given` under each of `score.baselines`."""
    return {f"{score.given}, {preset}": preset for preset in score.baselines} if score.get("baselines") else {}


def table_path(folder: Path, arm: str) -> Path:
    """Path of the profile table of an arm within a run folder."""
    return folder / "profiles" / f"{arm.replace(' ', '_')}.parquet"


def write_profiles_of(
    encoders: Mapping[str, Encoder | FeatureEncoder],
    images: ShardDataset | None,
    trained_on: ShardDataset,
    folder: Path,
    num_workers: int = 0,
) -> dict[str, pd.DataFrame]:
    """Write well profiles by each encoder, from images or cached features, into the run's `folder`, and return them.

    Each rank embeds the images of its plates, and all must call this; rank 0 writes and gets the tables, the others none.

    Args:
        trained_on: all samples of the dataset that encoders of features were trained on.
        num_workers: threads that read and decode images ahead.
    """
    import torch

    from morphoclip.distributed import rank
    from morphoclip.experiment.embed_by_ranks import embed_by_ranks
    from morphoclip.export import encoder_provenance
    from morphoclip.models import FeatureEncoder
    from morphoclip.profiling import write_profiles
    from morphoclip.profiling.feature_embedding import embed_features

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tables = {}
    for name, encoder in encoders.items():
        if rank() == 0:
            print(f"profiles by {name}")
        if isinstance(encoder, FeatureEncoder):
            if rank() > 0:
                continue
            tables[name] = embed_features(encoder, cast("FeatureDataset", trained_on), device=device)
        else:
            assert images is not None  # encoders of images are trained on or chosen for images
            table = embed_by_ranks(encoder, images, folder, device=device, num_workers=num_workers)
            if table is None:
                continue
            tables[name] = table
        write_profiles(tables[name], table_path(folder, name), encoder_provenance(encoder))
    return tables


def true_profiles(path: str, like: pd.DataFrame) -> pd.DataFrame:
    """The true phenotype of a simulated screen as profiles of the wells of `like`, without wells that have no cell."""
    metadata, _ = schema.split_columns(like)
    truth = pd.read_parquet(path)
    axes = schema.split_columns(truth)[1]
    well = [schema.PLATE, schema.WELL]
    return like[metadata].merge(truth[well + axes], on=well, validate="one_to_one").dropna(subset=axes)
