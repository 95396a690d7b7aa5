"""Queries in the joint space: what is nearest comes first, whatever the order of rows."""

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.main import app
from morphoclip.methods.query import embed_prompts, embed_query, load_clip
from morphoclip.profiling import encoder_provenance, load_encoder, write_profiles
from morphoclip.screening.cross_modal import profile_of, rank_candidates, rank_profiles
from tests.methods.tiny import PROMPTS, TEXT, feature_bags, feature_clip, loader, trainer

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
    with pytest.raises(ValueError, match="2 features, but the joint space has 3"):
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
    with pytest.raises(FileNotFoundError, match="give a run folder"):
        load_clip(tmp_path / "checkpoints")


def test_structures_are_read_by_rdkit_and_answered_by_towers_that_know_them(tmp_path):
    both = feature_clip().eval()
    sentences = feature_clip(prompts=PROMPTS, modalities=None, text=TEXT).eval()
    spelled = feature_clip(prompts=["CCO", "c1ccccc1", "loss of PLK1", None, None], modalities=None, text=TEXT).eval()
    for method in (both, spelled):
        assert embed_query(method, None, "OCC").shape == embed_query(method, "gain of PLK1", None).shape == (8,)
        with pytest.raises(ValueError, match="RDKit cannot read the SMILES 'notasmiles'"):
            embed_query(method, None, "notasmiles")
    with pytest.raises(ValueError, match="trained on bare SMILES; its prompts are like 'DMSO': give a text"):
        embed_query(sentences, None, "CCO")
    molecules = feature_clip(prompts=["CCO", "c1ccccc1", None, None, None], modalities=None, text=TEXT).eval()
    with pytest.raises(ValueError, match="trained on texts; its prompts are like 'CCO': give a SMILES"):
        embed_query(molecules, "loss of PLK1", None)
    genes = feature_clip(prompts=["CBS", "PLK1", "TP53", None, None], modalities=None, text=TEXT).eval()
    with pytest.raises(ValueError, match="bare SMILES"):
        embed_query(genes, None, "CCO")
    with pytest.raises(ValueError, match="trained without doses"):
        embed_query(both, "loss of PLK1", None, dose=3.0)
    with pytest.raises(ValueError, match="text to embed is empty"):
        embed_query(both, " ", None)


@pytest.fixture
def asked(tmp_path):
    """A function that asks a small run about a table of four wells."""
    torch.manual_seed(0)
    run, method = trainer(1), feature_clip()
    run.fit(method, loader(feature_bags()))
    run.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    vectors = np.random.default_rng(0).normal(size=(4, method.encoder.embed_dim))
    names = [f"embedding_{i:04d}" for i in range(method.encoder.embed_dim)]
    table = pd.concat([TABLE.drop(columns=["x", "y"]), pd.DataFrame(vectors, columns=names)], axis=1)
    write_profiles(table, tmp_path / "p.parquet", encoder_provenance(load_encoder(tmp_path)))
    command = ["query", str(tmp_path), "--profiles", str(tmp_path / "p.parquet")]
    return lambda *words: CliRunner().invoke(app, [*command, *map(str, words)], env={"COLUMNS": "200"})


WELL = ("--plate", "P1", "--well", "A01")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "got no question"),
        (("--plate", "P1", "--text", "loss of PLK1"), "got --text --plate"),
        ((*WELL, "--text", "loss of PLK1"), "got --text --plate --well"),
        (("--plate", "P1"), "got --plate: give"),
        (("--text", "loss of PLK1", "--smiles", "CCO"), "got --text --smiles"),
        (("--text", "loss of PLK1", "--candidates", "c.csv"), "--candidates are ranked for a well"),
        ((*WELL, "--level", "well"), "--level applies to"),
        ((*WELL, "--dose", "3"), "--dose applies to"),
        (("--text", "loss of PLK1", "--top", "-1"), "--top"),
    ],
)
def test_options_that_a_query_does_not_use_are_refused(words, said, monkeypatch):
    def load(*args):
        raise AssertionError("the run was loaded")

    monkeypatch.setattr("morphoclip.methods.query.load_clip", load)
    ask = ["query", "run", "--profiles", "p.parquet", *words]
    result = CliRunner().invoke(app, ask, env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())


def test_a_well_ranks_the_candidates_of_a_table(tmp_path, asked):
    smiles = ["CCO", "c1ccccc1", "CC(=O)O"]
    table = pd.DataFrame({"Metadata_name": ["ethanol", "benzene", "acetic acid"], schema.SMILES: smiles})
    table.to_csv(tmp_path / "c.csv", index=False)
    result = asked(*WELL, "--candidates", tmp_path / "c.csv", "--out", tmp_path / "ranking.csv")
    assert result.exit_code == 0, result.output
    ranking = pd.read_csv(tmp_path / "ranking.csv")
    method = load_clip(tmp_path)
    profile = torch.from_numpy(profile_of(pd.read_parquet(tmp_path / "p.parquet"), "P1", "A01"))
    expected = {
        name: torch.cosine_similarity(embed_query(method, None, structure).double(), profile, dim=0).item()
        for name, structure in zip(table["Metadata_name"], smiles, strict=True)
    }
    assert dict(zip(ranking["Metadata_name"], ranking["cosine"], strict=True)) == pytest.approx(expected, abs=1e-5)
    assert ranking["Metadata_name"].tolist() == sorted(expected, key=expected.get, reverse=True)
    assert ranking["rank"].tolist() == [1, 2, 3]
    table.rename(columns={schema.SMILES: "structure"}).to_csv(tmp_path / "c.csv", index=False)
    wrong = asked(*WELL, "--candidates", tmp_path / "c.csv")
    assert wrong.exit_code == 1
    assert "needs one of the columns ['text', 'smiles', 'Metadata_smiles']" in wrong.stderr


def test_a_level_or_a_dose_that_the_run_does_not_know_is_an_error_in_a_line(asked):
    level = asked("--text", "loss of PLK1", "--level", "site")
    assert (level.exit_code, level.stderr.splitlines()[0]) == (
        1,
        "error: level='site': use well or perturbation (HYDRA_FULL_ERROR=1 prints the traceback)",
    )
    dose = asked("--text", "loss of PLK1", "--dose", "3")
    assert dose.exit_code == 1
    assert "trained without doses" in dose.stderr
    lost = asked("--plate", "P1", "--well", "A09")
    assert lost.stderr.startswith("error: the profile table has no well A09")


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
    assert "was not checked" not in own.output
    assert "was not checked" in asked(None).output
    with torch.no_grad():
        encoder.mean += 1
    assert "computed by encoder" in asked(encoder_provenance(encoder)).stderr
    normalised = asked({"profiles": "raw.parquet", "steps": []})
    assert "give raw.parquet" in normalised.stderr
