"""Other tables through an encoder of profiles: features by name, gaps at the training mean, refused beyond a share."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.main import app
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.models import create_encoder
from morphoclip.profiling import embed, export_encoder
from morphoclip.profiling.feature_embedding import embed_features, embed_table, features_made_by
from morphoclip.profiling.import_table import import_tables, write_table
from tests.profiling.tables import NAMES, small_table

EMBEDDING = [f"embedding_{i:04d}" for i in range(3)]


def encoder_of(dataset):
    torch.manual_seed(0)
    mean, std = dataset.channel_statistics()
    size = {"feature_dim": dataset.shape[1], "embed_dim": 3, "width": 8, "blocks": 1, "clip": 10.0, "pool": "mean"}
    encoder = create_encoder("profile_mlp", channels=["profile"], mean=mean.tolist(), std=std.tolist(), **size)
    encoder.trained_on = {"features": features_made_by(dataset)}
    return encoder.eval()


@pytest.fixture
def dataset(tmp_path):
    return FeatureDataset(write_table(small_table(), tmp_path / "training", {}))


@pytest.fixture
def encoder(dataset):
    return encoder_of(dataset)


def embedded(encoder, table):
    notes = []
    return embed_table(encoder, table, notes=notes)[EMBEDDING].to_numpy(), notes


def test_the_training_table_gives_the_profiles_of_its_folder(encoder, dataset):
    made = embed_table(encoder, small_table())
    folder = embed_features(encoder, dataset)
    np.testing.assert_array_equal(made[EMBEDDING], folder[EMBEDDING])
    assert [c for c in made if c not in EMBEDDING] == [c for c in small_table() if c.startswith("Metadata_")]
    assert made[schema.WELL].tolist() == small_table()[schema.WELL].tolist()


def test_features_are_found_by_name_whatever_their_order(encoder):
    table = small_table(3, ("Q",))
    turned = table[[*table.columns[:6], *reversed(NAMES)]].assign(Cells_Other=1.0)
    straight, _ = embedded(encoder, table)
    made, notes = embedded(encoder, turned)
    np.testing.assert_array_equal(made, straight)
    assert notes[:2] == ["12 of the encoder's 12 features found by name", "1 surplus, left out: Cells_Other"]


def test_a_missing_feature_and_a_gap_are_the_training_mean(encoder, dataset):
    table = small_table(3, ("Q",))
    mean = dataset.channel_statistics()[0][0]
    table.loc[2, NAMES[5]] = np.nan
    made, notes = embedded(encoder, table.drop(columns=NAMES[1]))
    filled = table.assign(**{NAMES[1]: mean[1]})
    filled.loc[2, NAMES[5]] = mean[5]
    np.testing.assert_allclose(made, embedded(encoder, filled)[0], rtol=1e-6)
    assert f"1 missing, the training mean stands for them: {NAMES[1]}" in notes
    assert "1 values are not finite, the training mean stands for them" in notes


def test_too_many_missing_features_or_values_are_refused(encoder):
    table = small_table(3, ("Q",))
    with pytest.raises(ValueError, match=rf"2 of the 12 features.*2 missing \(e.g. {NAMES[0]}, {NAMES[1]}\).*10%"):
        embed_table(encoder, table.drop(columns=NAMES[:2]))
    gaps = table.assign(**dict.fromkeys(NAMES[:2], np.nan))
    with pytest.raises(ValueError, match=r"16 of 96 values of the table are not finite"):
        embed_table(encoder, gaps)


def test_a_feature_constant_in_training_has_no_effect(tmp_path):
    constant = FeatureDataset(write_table(small_table().assign(**{NAMES[0]: 5.0}), tmp_path / "c", {}))
    encoder, table = encoder_of(constant), small_table(3, ("Q",))
    made, notes = embedded(encoder, table)
    np.testing.assert_array_equal(made, embedded(encoder, table.assign(**{NAMES[0]: 5.0}))[0])
    assert any("1 features were constant in training" in note for note in notes)


@pytest.mark.parametrize(("gain", "alarm"), [(1.0, False), (1.3, False), (40.0, True), (0.02, True)])
def test_a_table_on_another_scale_is_an_alarm(encoder, gain, alarm):
    _, notes = embedded(encoder, small_table(4, ("Q", "R"), gain))
    assert any(note.startswith("ALARM") and "another scale" in note for note in notes) == alarm


def test_plates_are_standardised_as_those_of_training(tmp_path):
    """A new plate with its own gain and offset gives the profiles it would give without them."""
    small_table().to_csv(tmp_path / "t.csv", index=False)
    standardised = FeatureDataset(import_tables(str(tmp_path / "t.csv"), tmp_path / "d", standardise_by_plate=True))
    encoder = encoder_of(standardised)
    np.testing.assert_array_equal(embedded(encoder, small_table())[0], embed_features(encoder, standardised)[EMBEDDING])
    table = small_table(6, ("Q",))
    moved = table.assign(**{name: 50 * table[name] + 100 for name in NAMES})
    np.testing.assert_allclose(embedded(encoder, moved)[0], embedded(encoder, table)[0], rtol=1e-2, atol=1e-3)
    with pytest.raises(ValueError, match="plate Q has fewer than two crops or wells of negative controls"):
        embed_table(encoder, table.assign(**{schema.CONTROL_TYPE: ""}))


def test_encoders_and_data_of_other_kinds_are_refused(encoder, dataset):
    with pytest.raises(ValueError, match="takes images, not a profile table"):
        embed_table(create_encoder("intensity_statistics"), small_table())
    encoder.trained_on = {"features": {"encoder": {"name": "x"}, "standardised_by_plate": None}}
    with pytest.raises(ValueError, match="was not trained on profile tables"):
        embed_table(encoder, small_table())
    with pytest.raises(ValueError, match=r"trained on features of crops, but .* wells of profile tables"):
        embed_features(encoder, dataset)


def test_the_command_embeds_a_table(encoder, tmp_path):
    export_encoder(encoder, tmp_path / "encoder")
    table = small_table(3, ("Q",)).drop(columns=NAMES[1])
    table.to_csv(tmp_path / "other.csv", index=False)
    arguments = ["embed", str(tmp_path / "encoder"), str(tmp_path / "other.csv"), "--out", str(tmp_path / "p.parquet")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "11 of the encoder's 12 features found by name" in result.output
    made = pd.read_parquet(tmp_path / "p.parquet")
    np.testing.assert_allclose(made[EMBEDDING], embed_table(encoder, table)[EMBEDDING], rtol=1e-5)
    assert json.loads((tmp_path / "p.parquet.json").read_text())["trained_on"]["features"]["names"] == NAMES
    assert "matched by name" in (tmp_path / "encoder/README.md").read_text()
    refused = CliRunner().invoke(app, [*arguments, "--bin", "2"])
    assert refused.exit_code != 0
    pd.testing.assert_frame_equal(embed(encoder, str(tmp_path / "other.csv")), made, check_exact=False, rtol=1e-5)
