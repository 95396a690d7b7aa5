"""A finished run's scores on what training never saw: profiles of each row of its report, score card by score card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from string import Formatter

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip import schema

TRAINED, UNTRAINED = "trained", "untrained encoder"


def image_dataset(dataset):
    """The crops that a folder of features was written from, scaled as then, or None where they are gone; else `dataset`."""
    from morphoclip.data import ShardDataset
    from morphoclip.data.shards.manifest import MANIFEST

    made = dataset.manifest.get("features")
    if made is None:
        return dataset
    there = (Path(made["source"]) / MANIFEST).is_file()
    return ShardDataset(made["source"], None, *made["scaling"]) if there else None


def feature_dataset(loader):
    """The cached features of all crops that `loader` shows, None where it shows images."""
    from morphoclip.data.loading.features import FeatureDataModule, FeatureDataset

    return FeatureDataset(loader.roots[0]) if isinstance(loader, FeatureDataModule) else None


def untrained(config: DictConfig, method, loader, crops: int = 1024):
    """The trained encoder's architecture with fresh weights.

    Its batch normalisations get the statistics of training crops (or bags of features), as the trained one has: a
    baseline that lacked them would make training look better than it is.
    """
    import torch

    from morphoclip.models import FeatureEncoder, create_encoder

    torch.manual_seed(config.seed)
    trusted = (
        {"trust_remote_code": True} if config.encoder.get("trust_remote_code") else {}
    )  # no encoder's config says it
    encoder = create_encoder(**method.export_encoder().config, **trusted).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain average over the batches
    if isinstance(encoder, FeatureEncoder):
        return with_bag_statistics(encoder, loader)
    dataset = loader.mixture.datasets[0]
    chosen = np.random.default_rng(config.seed).permutation(len(dataset))[:crops]
    with torch.no_grad():
        for part in np.array_split(chosen, max(1, len(chosen) // 128)):
            pixels, (low, high) = dataset.read(part), dataset.intensities(part)
            encoder(encoder.preprocess(*map(torch.from_numpy, (pixels, low, high))))
    return encoder.eval()


def with_bag_statistics(encoder, loader, batches: int = 8):
    """A feature encoder with what the features of the training split are like and, where it normalises, its bags."""
    import torch

    mean, std = loader.mixture.datasets[0].channel_statistics()
    encoder.mean.copy_(torch.from_numpy(mean))
    encoder.std.copy_(torch.from_numpy(std))
    with torch.no_grad():
        for batch in islice(loader.train_dataloader(), batches):
            encoder(encoder.preprocess(batch.features), batch.mask)
    return encoder.eval()


def profiles(encoders: Mapping, dataset, folder: Path, features=None) -> dict[str, pd.DataFrame]:
    """Well profiles by each encoder, of images or of cached `features`, kept in `folder` as Parquet."""
    import torch

    from morphoclip.export.provenance import encoder_provenance
    from morphoclip.models import FeatureEncoder
    from morphoclip.profiling import embed, write_profiles
    from morphoclip.profiling.features import embed_features

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tables = {}
    for name, encoder in encoders.items():
        print(f"profiles by {name}")
        if isinstance(encoder, FeatureEncoder):
            tables[name] = embed_features(encoder, features, device=device)
        else:
            tables[name] = embed(encoder, dataset, device=device, batch_size=128)
        write_profiles(tables[name], folder / f"{name.replace(' ', '_')}.parquet", encoder_provenance(encoder))
    return tables


def true_profiles(path: str, like: pd.DataFrame) -> pd.DataFrame:
    """The planted phenotype of a simulated screen as profiles of the wells of `like`; wells without a cell have none."""

    metadata, _ = schema.split_columns(like)
    truth = pd.read_parquet(path)
    axes = schema.split_columns(truth)[1]
    place = [schema.PLATE, schema.WELL]
    return like[metadata].merge(truth[place + axes], on=place, validate="one_to_one").dropna(subset=axes)


def score_held_out(config: DictConfig, table: pd.DataFrame):
    """(score card of the held-out wells, their normalised profiles).

    Statistics come from training wells; a plate that training never saw is centred on its own controls.
    """
    from morphoclip.evaluation import score
    from morphoclip.profiling import crossfit

    normalizer = instantiate(config.normalize)
    trained_on, asked = training_wells(config, table), scored_wells(config, table)
    if config.score.crossfit:
        folds = crossfit(normalizer, table, seed=config.score.seed, rows=trained_on)
    else:
        folds = [normalizer.fit(table, trained_on).transform(table)]
    folds = [fold[asked[fold.index]] for fold in folds]
    options = {key: config.score[key] for key in ("tasks", "p_convention", "null_size", "seed")}
    return score(folds, protocol=instantiate(config.protocol), **options), folds[0]


def training_wells(config: DictConfig, table: pd.DataFrame) -> np.ndarray:
    """bool a row: wells training saw; all where nothing is held out."""
    if config.data.holdout is None:
        return np.ones(len(table), bool)
    return (held_out(table, config.data) == "train").to_numpy()


def scored_wells(config: DictConfig, table: pd.DataFrame) -> pd.Series:
    """bool a row: unseen plates with their controls and reagents, but of the compounds only those never trained on."""

    if config.data.holdout is None:
        return pd.Series(True, index=table.index)
    unseen_plate = table[schema.BATCH].isin(list(config.data.holdout.batches))
    seen = table.loc[training_wells(config, table), schema.PERTURBATION]
    of_compound = (table[schema.MODALITY] == "compound") & (table[schema.CONTROL_TYPE] != schema.NEGCON)
    return unseen_plate & ~(of_compound & table[schema.PERTURBATION].isin(seen))


def held_out(fields: pd.DataFrame, data: DictConfig) -> pd.Series:
    """'train' or 'heldout' a row of a field or profile table."""
    from morphoclip.data.splits.holdout import holdout

    return holdout(fields, **OmegaConf.to_container(data.holdout))


def with_leaks(config: DictConfig, card, table: pd.DataFrame, tells: Sequence[str] = ()):
    """The card with each row marked clean, seen in training, or leaked by a training prompt (EVALUATION §3).

    A prompt leaks what its template asks for, and what its words give away (`tells`).
    """
    from morphoclip.evaluation.tasks.leaks import mark_leaks

    if config.data.holdout is None:
        return card
    seen = table.loc[training_wells(config, table), schema.PERTURBATION]
    templates = OmegaConf.to_container(config.perturbation).values() if config.perturbation else ()
    fields = {name for template in templates for _, name, _, _ in Formatter().parse(template) if name}
    return mark_leaks(card, set(seen), sorted(fields | set(tells)))


def shown_row(card, task: str) -> pd.Series:
    """The metrics row shown for a task: over all perturbations, not only those retrieved."""
    rows = card.metrics[(card.metrics["task"] == task) & (card.metrics["subset"] == "all")].set_index("metric")
    ungated = "mean_average_precision_ungated"
    return rows.loc[ungated if ungated in rows.index else "mean_average_precision"]
