"""Features standardised by their plate's negative controls: against numpy, refused where there are none, remembered."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from morphoclip import schema
from morphoclip.cli.main import app
from morphoclip.data import ShardDataset
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.models import create_encoder
from morphoclip.profiling import embed, export_encoder, load_encoder
from morphoclip.profiling import features as module
from morphoclip.profiling.feature_embedding import features_made_by, features_of_training
from morphoclip.profiling.feature_writer import FeatureWriter
from morphoclip.profiling.features import standardise_by_plate, write_features, write_standardised_features
from tests.datasets import screen_rows, write_screen


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return ShardDataset(write_screen(tmp_path_factory.mktemp("crops") / "dataset", screen_rows()))


@pytest.fixture
def raw(crops, tmp_path):
    """Features (2, 3) of each crop with an offset and a gain a plate; one feature is constant, one has an outlier."""
    fields = crops.fields.iloc[crops.fields_of(np.arange(len(crops)))]
    plate = fields.groupby(schema.PLATE).ngroup().to_numpy()
    rng = np.random.default_rng(0)
    values = (
        rng.normal(size=(len(crops), 2, 3)) * rng.uniform(0.5, 3, (6, 2, 3))[plate] + rng.normal(0, 5, (6, 2, 3))[plate]
    )
    values[:, 1, 2] = 7
    values[np.flatnonzero(fields[schema.CONTROL_TYPE] == "")[0], 0, 0] = 1e4
    made_by = {"encoder": {"name": "a"}, "scaling": ["field", 0.1, 99.9], "weights_sha256": "w"}
    with FeatureWriter(tmp_path / "raw", crops, (2, 3), made_by, "float32") as writer:
        writer.write(np.arange(len(crops)), values)
    return FeatureDataset(tmp_path / "raw")


def test_features_equal_numpys_plate_by_plate(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 7)
    found = FeatureDataset(standardise_by_plate(raw, tmp_path / "f", dtype="float32", progress=False))
    values, fields = raw.features.astype(np.float64), raw.fields.iloc[raw.fields_of(np.arange(len(raw)))]
    expected = np.empty_like(values)
    for plate in fields[schema.PLATE].unique():
        own = (fields[schema.PLATE] == plate).to_numpy()
        controls = values[own & (fields[schema.CONTROL_TYPE] == "negcon").to_numpy()]
        spread = controls.std(0)
        expected[own] = (values[own] - controls.mean(0)) / np.where(spread < 1e-4, 1, spread)
    assert np.abs(expected).max() > 1000
    np.testing.assert_allclose(found.features, expected.clip(-30, 30), rtol=1e-4, atol=1e-4)
    assert (found.features[:, 1, 2] == 0).all()
    assert found.features.max() == 30
    made = found.manifest["features"]
    assert made["standardised_by_plate"] == {
        **{"fit_on": "negcon", "clip": 30.0, "constant_below": 1e-4},
        "fewest_control_crops": 4,
    }
    assert {k: made[k] for k in ("encoder", "scaling", "source", "weights_sha256")} == {
        k: raw.manifest["features"][k] for k in ("encoder", "scaling", "source", "weights_sha256")
    }


def test_a_plate_without_controls_is_named_before_anything_is_written(tmp_path):
    rows = [row | {schema.CONTROL_TYPE: ""} if row[schema.PLATE] == "b2p1" else row for row in screen_rows()]
    crops = ShardDataset(write_screen(tmp_path / "crops", rows))

    def embedded(*args):
        raise AssertionError("a crop was embedded")

    encoder = create_encoder("intensity_statistics")
    encoder.register_forward_pre_hook(embedded)
    with pytest.raises(
        ValueError, match=r"plate b2 b2p1 has fewer than two crops .*1 of 6 plates.*Metadata_control_type"
    ):
        write_standardised_features(encoder, crops, tmp_path / "f", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]


def test_the_command_standardises_what_it_would_have_written(crops, tmp_path):
    made = export_encoder(create_encoder("intensity_statistics"), tmp_path / "encoder")
    command = ["features", str(made), str(crops.folder), "--device", "cpu", "--out"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "f"), "--standardise-by-plate"])
    assert result.exit_code == 0, result.output
    raw = write_features(load_encoder(made), crops, tmp_path / "raw", dtype="float32", progress=False)
    expected = FeatureDataset(standardise_by_plate(raw, tmp_path / "expected", progress=False))
    np.testing.assert_array_equal(FeatureDataset(tmp_path / "f").features, expected.features)
    assert expected.features.dtype == np.float16
    assert {path.name for path in tmp_path.iterdir()} == {"encoder", "f", "raw", "expected"}
    again = CliRunner().invoke(app, [*command, str(tmp_path / "f"), "--standardise-by-plate"])
    assert again.exit_code == 1
    assert "never overwritten" in again.stderr


def test_what_a_killed_start_left_goes_with_the_next(crops, tmp_path):
    left, own = tmp_path / "f.partial-raw.partial-1", tmp_path / "f.raw"
    left.mkdir()
    own.mkdir()
    (left / "features.npy").write_bytes(b"half")
    write_standardised_features(create_encoder("intensity_statistics"), crops, tmp_path / "f", progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"f", "f.raw"}


def test_features_are_standardised_once(raw, tmp_path):
    once = standardise_by_plate(raw, tmp_path / "f", progress=False)
    with pytest.raises(ValueError, match="f is already standardised by plate"):
        standardise_by_plate(once, tmp_path / "twice", progress=False)


def test_folders_trained_on_together_are_made_alike(raw, tmp_path):
    standardised = standardise_by_plate(raw, tmp_path / "f", progress=False)
    assert features_of_training([raw.folder, raw.folder]) == features_made_by(raw)
    with pytest.raises(
        ValueError, match=r"raw and .*f were computed differently: standardised_by_plate is None and \{'fit_on'"
    ):
        features_of_training([raw.folder, standardised])


def test_where_a_backbone_was_read_from_is_recorded_and_not_compared(raw):
    known = features_made_by(raw)
    trained = create_encoder("profile_mlp", channels=["DNA", "ER"], feature_dim=3, width=8, blocks=1, embed_dim=4)
    trained.trained_on = {"features": known | {"encoder": known["encoder"] | {"backbone": "hf:a", "revision": "b"}}}
    assert len(embed(trained, raw)) == 88
    raw.manifest["features"]["encoder"] |= {"backbone": "hf:elsewhere", "architecture": {"layers": 1}}
    assert features_made_by(raw)["encoder"] == known["encoder"] | {"backbone": "hf:elsewhere"}


def test_an_encoder_of_features_refuses_those_made_otherwise(raw, tmp_path):
    standardised = standardise_by_plate(raw, tmp_path / "f", progress=False)
    torch.manual_seed(0)
    shape = {"channels": ["DNA", "ER"], "feature_dim": 3, "width": 8, "blocks": 1, "embed_dim": 4}
    encoder = create_encoder("profile_mlp", **shape)
    known = {"features": features_made_by(FeatureDataset(standardised))}
    trained = load_encoder(export_encoder(encoder, tmp_path / "encoder", trained_on=known))
    assert len(embed(trained, standardised)) == 88
    with pytest.raises(
        ValueError, match=r"standardised_by_plate \{'fit_on'.*raw has None.* with --standardise-by-plate"
    ):
        embed(trained, raw.folder)
    result = CliRunner().invoke(
        app,
        ["embed", str(tmp_path / "encoder"), str(raw.folder), "--out", str(tmp_path / "p.parquet"), "--device", "cpu"],
    )
    assert result.exit_code == 1
    assert "trained on features with standardised_by_plate" in result.stderr
    assert not (tmp_path / "p.parquet").exists()
    trained.trained_on["features"] = features_made_by(raw)
    with pytest.raises(
        ValueError, match=r"standardised_by_plate None, but .*f has \{'fit_on'.* without --standardise-by-plate"
    ):
        embed(trained, standardised)
    trained.trained_on["features"] |= {"weights_sha256": "others"}
    with pytest.raises(ValueError, match=r"weights_sha256 others, but .* has w"):
        embed(trained, raw)
    trained.trained_on["features"] |= {"weights_sha256": None, "encoder": {"name": "a"}}  # made before it was recorded
    assert len(embed(trained, raw)) == 88
    del trained.trained_on["features"]
    assert len(embed(trained, standardised)) == 88
