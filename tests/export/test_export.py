from __future__ import annotations

import json

import pytest
import torch

from morphoclip.export.provenance import encoder_hash
from morphoclip.models import create_encoder
from morphoclip.profiling import export_encoder, load_encoder
from tests.methods import tiny

SMALL = {
    "name": "vit_demo",
    "depth": 1,
    "embed_dim": 32,
    "image_size": 32,
    "mean": 0.2,
    "std": [0.1, 0.2, 0.3, 0.4, 0.5],
}


class Teacher(torch.nn.Module):
    """A method in miniature: it trains one encoder and exports another."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = create_encoder(**SMALL)
        self.teacher = create_encoder(**SMALL)

        self.trained_on, self.crop_pool = {}, None

    def export_encoder(self):
        return self.teacher

    def describe_towers(self):
        return None


@pytest.fixture
def crops():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60000, (4, 5, 32, 32), generator=generator).to(torch.uint16)
    return images, torch.full((4, 5), 100.0), torch.full((4, 5), 50000.0)


def features(encoder, crops):
    with torch.no_grad():
        return encoder.eval()(encoder.preprocess(*crops))


def checkpoint_of(method: Teacher, path):
    torch.save(
        {
            "state_dict": method.state_dict(),
            "encoder_config": method.encoder.config,
            "encoder_prefix": "teacher.",
            "trained_on": {"pixel_size_um": 0.6},
        },
        path,
    )


def test_a_folder_reproduces_the_features_bit_for_bit(crops, tmp_path):
    method = Teacher()
    facts = {"pixel_size_um": 0.598, "crop_size": 32}
    folder = export_encoder(method, tmp_path / "encoder", trained_on=facts)
    loaded = load_encoder(folder)
    assert torch.equal(features(loaded, crops), features(method.teacher, crops))
    assert not torch.equal(features(loaded, crops), features(method.encoder, crops))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.trained_on == {"method": "Teacher", **facts}
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
    config = json.loads((folder / "config.json").read_text())
    assert config["channels"] == ["DNA", "ER", "RNA", "AGP", "Mito"]
    assert config["feature_size"] == 32
    assert config["sha256"] == encoder_hash(loaded) == encoder_hash(method.teacher)


def test_checkpoints_and_run_folders_load_and_export(crops, tmp_path):
    method = Teacher()
    expected = features(method.teacher, crops)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint_of(method, checkpoint)
    for source in (checkpoint, tmp_path / "run", str(checkpoint)):
        assert torch.equal(features(load_encoder(source), crops), expected)
    folder = export_encoder(tmp_path / "run", tmp_path / "encoder")
    assert torch.equal(features(load_encoder(folder), crops), expected)
    assert load_encoder(folder).trained_on["pixel_size_um"] == 0.6


def test_a_run_and_its_checkpoint_keep_what_they_were_trained_on(tmp_path):
    method = tiny.simclr()
    facts = {"crop_size": 16, "scale_by": "negcon", "low_percentile": 1, "high_percentile": 99.0}
    method.trained_on = facts
    run = tiny.trainer(1)
    run.fit(method, tiny.loader(tiny.bags()))
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = type(method).load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for number, source in enumerate((method, tmp_path / "last.ckpt", again)):
        folder = export_encoder(source, tmp_path / str(number))
        assert load_encoder(folder).trained_on == {**facts, "method": "SimCLR"}


def test_tied_weights_survive(crops, tmp_path):
    encoder = create_encoder(**SMALL)
    encoder.backbone.blocks[0].norm2 = encoder.backbone.blocks[0].norm1
    assert torch.equal(features(load_encoder(export_encoder(encoder, tmp_path / "e")), crops), features(encoder, crops))


def test_the_hash_sees_every_weight_and_setting():
    encoder = create_encoder(**SMALL)
    before = encoder_hash(encoder)
    with torch.no_grad():
        next(encoder.parameters()).view(-1)[3] += 1e-6
    assert encoder_hash(encoder) != before
    assert encoder_hash(create_encoder(**{**SMALL, "mean": 0.25})) != before


def test_bad_sources_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds neither"):
        load_encoder(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"missing\.ckpt"):
        load_encoder(tmp_path / "missing.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.ckpt cannot be read"):
        load_encoder(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="no encoder_config"):
        load_encoder(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="neither an encoder nor a method"):
        export_encoder(torch.nn.Linear(2, 2), tmp_path / "linear")
    assert not (tmp_path / "linear").exists()


def test_bad_folders_are_named(tmp_path):
    folder = export_encoder(Teacher(), tmp_path / "encoder")
    with pytest.raises(FileExistsError, match="not empty"):
        export_encoder(Teacher(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(ValueError, match=r"has format 99.*upgrade"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps({**config, "encoder": {**SMALL, "depth": 2}}))
    with pytest.raises(ValueError, match="do not fit its config"):
        load_encoder(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is not the config"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_encoder(folder)
