"""`morphoclip attention`: crops cover the field, and the picture is written."""

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from morphoclip.cli.main import app
from morphoclip.models import create_encoder
from morphoclip.models.attention import attention_maps
from morphoclip.profiling import export_encoder, load_encoder
from morphoclip.profiling.attention import attention_of_field, attention_picture, draw_attention, field_limits

ENCODER = {"image_size": 32, "embed_dim": 16, "depth": 1, "heads": 2, "stem_widths": [4, 8]}


def field(height=70, width=64):
    return np.random.default_rng(0).integers(0, 3000, (5, height, width)).astype(np.uint16)


def test_a_fields_map_is_that_of_its_crops():
    encoder, image = create_encoder("vit_demo", **ENCODER).eval(), field()
    maps = attention_of_field(encoder, image, crop_size=32)
    assert maps.shape == (2, 70, 64)
    low, high = (torch.from_numpy(limit)[None] for limit in field_limits(encoder, image))
    crop = encoder.preprocess(torch.from_numpy(image[None, :, :32, 32:].copy()), low, high)
    expected = torch.nn.functional.interpolate(attention_maps(encoder, crop), (32, 32), mode="bilinear")[0]
    np.testing.assert_allclose(maps[:, :32, 32:], expected, rtol=1e-5)
    assert (maps > 0).all()


@pytest.fixture
def load_data(tmp_path):
    rows = []
    for number, well in enumerate(("A01", "B03")):
        row = {"Metadata_Plate": "P1", "Metadata_Well": well, "Metadata_Site": "1"}
        for channel, plane in zip(("DNA", "ER", "RNA", "AGP", "Mito"), field() * (1 + number), strict=True):
            tifffile.imwrite(tmp_path / f"{well}_{channel}.tiff", plane)
            row |= {f"FileName_Orig{channel}": f"{well}_{channel}.tiff", f"PathName_Orig{channel}": "."}
        rows.append(row)
    pd.DataFrame(rows).to_csv(tmp_path / "load_data.csv", index=False)
    return str(tmp_path / "load_data.csv")


def test_the_command_writes_a_picture_of_the_chosen_field(tmp_path, load_data):
    folder = export_encoder(create_encoder("vit_demo", **ENCODER), tmp_path / "encoder")
    out = tmp_path / "pictures" / "attention.png"
    command = ["attention", str(folder), load_data, "--out", str(out), "--well"]
    result = CliRunner().invoke(app, [*command, "B03"])
    assert result.exit_code == 0, result.output
    assert Image.open(out).size == (4 * 384 + 3 * 2, round(384 * 70 / 64))  # field, lit field, two heads
    wrong = CliRunner().invoke(app, [*command, "H12"])
    assert wrong.exit_code == 1
    assert "A01" in wrong.output
    assert "H12" in wrong.output


def test_a_frozen_backbone_has_a_tile_a_channel_cut_as_embed_cuts(tmp_path, load_data):
    small = {"backbone": "vit_tiny_patch16_224", "image_size": 64}
    encoder = create_encoder("per_channel", **small)
    folder = export_encoder(encoder, tmp_path / "encoder", trained_on={"crop_size": 32})
    out = draw_attention(folder, load_data, tmp_path / "a.png")
    assert Image.open(out).size == (4 * 384 + 3 * 2, 2 * round(384 * 70 / 64) + 2)  # two fields and five channels
    drawn = attention_picture(load_encoder(folder), field(), crop_size=32)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(drawn))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"out": "a"}, r"name it .*a\.png"),
        ({"out": "a.txt"}, r"name it .*a\.png"),
        ({"block": 7}, "block 7 does not exist: the encoder has 1"),
        ({"load_data": "."}, "is a folder, .* give the load_data.csv"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_field_is_read(tmp_path, monkeypatch, change, said):
    def read(*args):
        raise AssertionError("the field was read")

    monkeypatch.setattr("morphoclip.profiling.attention.find_field", read)
    folder = export_encoder(create_encoder("vit_demo", **ENCODER), tmp_path / "encoder")
    asked = {"load_data": str(tmp_path / "load_data.csv"), "out": "a.png", "block": -1} | change
    with pytest.raises(ValueError, match=said):
        draw_attention(folder, asked["load_data"], tmp_path / asked["out"], block=asked["block"])
