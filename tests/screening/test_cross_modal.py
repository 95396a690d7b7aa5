"""Queries in the joint space: what is nearest comes first, whatever the order of rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from morphoclip.cli import app
from morphoclip.data import schema
from morphoclip.methods.query import embed_prompts, embed_query, load_clip
from morphoclip.profiling import encoder_provenance, load_encoder, write_profiles
from morphoclip.screening.cross_modal import profile_of, rank_candidates, rank_profiles
from tests.methods.tiny import feature_bags, feature_clip, loader, trainer

TABLE = pd.DataFrame(
    {
        schema.PLATE: ["P1", "P1", "P2", "P2"],
        schema.WELL: ["A01", "A02", "A01", "A02"],
        schema.PERTURBATION: ["a", "b", "a", "b"],
        schema.MODALITY: "compound",
        "x": [1.0, 0.0, 10.0, 1.0],
        "y": [0.0, 1.0, 10.0, -1.0],
    }
)


def test_wells_and_perturbations_are_ranked_by_cosine():
    wells = rank_profiles(TABLE, np.array([0.0, 2.0]), "well")
    assert wells[schema.WELL].tolist() == ["A02", "A01", "A01", "A02"]
    assert wells["Metadata_cosine"].tolist() == pytest.approx([1, 2**-0.5, 0, -(2**-0.5)])
    ranked = rank_profiles(TABLE.sample(frac=1, random_state=1), np.array([0.0, 2.0]))
    # a: the mean of (1, 0) and (1, 1)/√2, however long the profiles are; b: of (0, 1) and (1, −1)/√2
    expected = {"a": 2**-0.5 / np.hypot(1 + 2**-0.5, 2**-0.5), "b": (1 - 2**-0.5) / np.hypot(2**-0.5, 1 - 2**-0.5)}
    assert dict(zip(ranked[schema.PERTURBATION], ranked["Metadata_cosine"], strict=True)) == pytest.approx(expected)
    assert ranked["Metadata_wells"].tolist() == [2, 2]
    assert ranked["Metadata_rank"].tolist() == [1.0, 2.0] or ranked["Metadata_rank"].tolist() == [1.5, 1.5]


def test_profiles_of_another_space_are_refused():
    with pytest.raises(ValueError, match="2 features and the joint space 3"):
        rank_profiles(TABLE, np.zeros(3))
    with pytest.raises(KeyError, match="A09 on plate P1"):
        profile_of(TABLE, "P1", "A09")


def test_candidates_of_a_well():
    ranked = rank_candidates(profile_of(TABLE, "P2", "A02"), np.array([[1.0, 1.0], [3.0, -3.0]]), ["one", "two"])
    assert ranked["candidate"].tolist() == ["two", "one"]


def test_a_trained_run_answers_texts_and_structures(tmp_path):
    run, method = trainer(1), feature_clip()
    run.fit(method, loader(feature_bags()))
    run.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    again = load_clip(tmp_path)
    with torch.inference_mode():
        vectors, names = embed_prompts(again)
        text = embed_query(again, "loss of PLK1", None)
        molecule = embed_query(again, None, "OCC")
    torch.testing.assert_close(text, vectors[names.index("loss of PLK1")], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(molecule, vectors[names.index("CCO")], atol=1e-6, rtol=1e-5)  # another spelling of it
    with pytest.raises(ValueError, match="either"):
        embed_query(again, "loss of PLK1", "CCO")
    with pytest.raises(FileNotFoundError, match="not an encoder folder"):
        load_clip(tmp_path / "checkpoints")


def test_a_query_says_where_the_profiles_are_of_another_encoder(tmp_path):
    run = trainer(1)
    run.fit(feature_clip(), loader(feature_bags()))
    run.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    encoder = load_encoder(tmp_path)
    names = [f"embedding_{i:04d}" for i in range(encoder.embed_dim)]
    table = TABLE[[c for c in TABLE if c.startswith("Metadata_")]].assign(**dict.fromkeys(names, 1.0))
    ask = ["query", str(tmp_path), "--text", "loss of PLK1", "--profiles"]

    def asked(provenance: dict | None):
        write_profiles(table, tmp_path / "p.parquet", provenance or {})
        if provenance is None:
            (tmp_path / "p.parquet.json").unlink()
        return CliRunner().invoke(app, [*ask, str(tmp_path / "p.parquet")])

    own = asked(encoder_provenance(encoder))
    assert own.exit_code == 0, own.output
    assert "cannot be told" not in own.output
    assert "cannot be told" in asked(None).output
    with torch.no_grad():
        encoder.mean += 1
    assert "made by another encoder" in str(asked(encoder_provenance(encoder)).exception)
    normalised = asked({"profiles": "raw.parquet", "steps": []})
    assert "give raw.parquet" in str(normalised.exception)
