"""Crops' weights: those the pool computes, over the crops of a well, from a run, a folder and cached features."""

import numpy as np
import pandas as pd
import pytest
import torch

from morphoclip import schema
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.data.shards.intensities import describe_field
from morphoclip.export.crop_pool import attends, load_crop_pool
from morphoclip.models import FeatureEncoder, GatedAttentionPool, create_encoder
from morphoclip.profiling import embed, export_encoder, load_encoder
from morphoclip.profiling.crop_attention import crop_attention
from morphoclip.profiling.features import write_features
from tests.methods.tiny import clip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ShardDataset:
    """Two fields of well A01, one of B02, three crops of 16 px each, written crop by crop in turn."""
    folder = tmp_path_factory.mktemp("data") / "dataset"
    with ShardWriter(folder, pixel_size_um=0.6) as writer:
        for k in range(3):
            for i, (well, site) in enumerate([("A01", "1"), ("A01", "2"), ("B02", "1")]):
                field = np.random.default_rng(i).integers(100, 4000, (5, 48, 16)).astype(np.uint16)
                row = {schema.PLATE: "P1", schema.WELL: well, schema.SITE: site, schema.PERTURBATION: well}
                row |= {schema.CONTROL_TYPE: "", **describe_field(field, schema.CHANNELS)}
                writer.add(field[:, k * 16 : k * 16 + 16], row, k * 16, 0, foreground=0.5)
    return ShardDataset(folder)


def test_weights_are_those_that_pool_the_well(dataset):
    method = clip().eval()
    table = crop_attention(method.encoder, dataset, method.pool, batch_size=4)
    np.testing.assert_allclose(table.groupby(schema.WELL)["attention"].sum(), 1)
    own = table[table[schema.WELL] == "A01"]
    assert len(own) == 6
    pixels, limits = dataset.read(own["Metadata_crop"]), dataset.intensities(own["Metadata_crop"])
    with torch.no_grad():
        crops = method.encoder(method.encoder.preprocess(*map(torch.from_numpy, (pixels, *limits))))
        _, weights = method.pool(crops[None], return_weights=True)
    np.testing.assert_allclose(own["attention"], weights[0], rtol=1e-5)
    np.testing.assert_array_equal(dataset.index["y"][own["Metadata_crop"]], own["Metadata_crop_y"])
    few = crop_attention(method.encoder, dataset, method.pool, wells=[("P1", "B02")])
    pd.testing.assert_frame_equal(few, table[table[schema.WELL] == "B02"].reset_index(drop=True))


def test_the_pool_travels_with_the_encoder_folder(dataset, tmp_path):
    method = clip()
    folder = export_encoder(method, tmp_path / "encoder")
    again = export_encoder(folder, tmp_path / "again")
    table = crop_attention(load_encoder(again), dataset, load_crop_pool(again))
    expected = crop_attention(method.encoder, dataset, method.pool)
    np.testing.assert_allclose(table["attention"], expected["attention"], rtol=1e-6)
    assert load_crop_pool(export_encoder(create_encoder("intensity_statistics"), tmp_path / "other")) is None


def test_where_crops_are_averaged_there_is_no_attention(dataset, tmp_path):
    mean = clip(image={"pool": "mean"})
    assert not attends(mean.encoder, mean.pool)
    with pytest.raises(ValueError, match="averages crops"):
        crop_attention(mean.encoder, dataset, mean.pool)
    assert load_crop_pool(export_encoder(mean, tmp_path / "mean")) is None
    assert not attends(mean.encoder, GatedAttentionPool(mean.encoder.embed_dim + 1))


def test_cached_features_have_weights_a_channel_and_embed_reads_their_folder(dataset, tmp_path):
    folder = write_features(
        create_encoder("intensity_statistics"), dataset, tmp_path / "f", dtype="float32", progress=False
    )
    torch.manual_seed(0)
    shape = {"channels": ["profile"], "feature_dim": 50, "embed_dim": 4, "pool": "gated", "width": 8, "blocks": 1}
    encoder = FeatureEncoder("profile_mlp", **shape).eval()
    table = crop_attention(encoder, FeatureDataset(folder))
    np.testing.assert_allclose(table.groupby(schema.WELL)["attention"].sum(), 1)
    own = table[table[schema.WELL] == "A01"]
    x = encoder.preprocess(torch.from_numpy(FeatureDataset(folder).read(own["Metadata_crop"])))
    weighted = (torch.from_numpy(own["attention"].to_numpy(np.float32))[:, None, None] * x).sum(0, keepdim=True)
    profile = embed(encoder, folder, progress=False).set_index(schema.WELL).loc["A01"]
    names = [f"embedding_{i:04d}" for i in range(4)]
    np.testing.assert_allclose(profile[names].astype(float), encoder.embed(weighted)[0].detach(), rtol=1e-4, atol=1e-6)
