"""A dataset folder and an encoder folder of format version 1, written before the second layout, are read as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import morphoclip
from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.data.shards.inspection import verify
from morphoclip.methods.query import embed_query, load_clip

V1 = Path(__file__).parent / "v1"


def test_the_dataset_opens_verifies_and_gives_its_crops():
    dataset = ShardDataset(V1 / "dataset")
    assert len(dataset) == 24
    assert dataset.channels == ("DNA", "ER", "RNA", "AGP", "Mito")
    assert not [problem for _, problems in verify(dataset) for problem in problems]
    # as the writer of the fixture drew them: crop k of field f from seed f
    field = np.random.default_rng(3).integers(100, 5000, (5, 8, 16), np.uint16)
    np.testing.assert_array_equal(dataset.read([6, 7])[1], field[:, :, 8:])
    first = dataset.fields.iloc[3]
    assert (first[schema.PLATE], first[schema.WELL], first[schema.PERTURBATION]) == ("b1p1", "A04", "cpd-00")


def test_the_encoder_gives_the_features_it_gave():
    encoder = morphoclip.load_encoder(V1 / "encoder")
    drawn = np.random.default_rng(0).integers(0, 4000, (2, 5, 16, 16)).astype(np.uint16)
    low, high = torch.full((2, 5), 100.0), torch.full((2, 5), 3000.0)
    features = encoder(encoder.preprocess(torch.from_numpy(drawn), low, high))
    np.testing.assert_allclose(features, np.load(V1 / "features.npy"), atol=1e-6)


def test_its_towers_answer():
    clip = load_clip(V1 / "encoder")
    aspirin, control = (embed_query(clip, text, None) for text in ("aspirin in U2OS", "DMSO"))
    assert aspirin.shape == (8,)
    assert not torch.allclose(aspirin, control)
    assert float(aspirin.norm()) == pytest.approx(float(embed_query(clip, "aspirin in U2OS", None).norm()))
