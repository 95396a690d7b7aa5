"""Models with code of their own: run on the caller's word alone, and described a channel as the model itself does."""

import json
import sys

import hydra
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from morphoclip import configs_dir
from morphoclip.cli.main import app
from morphoclip.data import ShardDataset
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.evaluation import Protocol
from morphoclip.experiment.tables import read_arm
from morphoclip.export.provenance import encoder_hash
from morphoclip.models import create_encoder
from morphoclip.models.hugging_face import vision_model
from morphoclip.profiling import export_encoder, load_encoder
from tests.datasets import screen_rows, write_screen

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from .patches import patches

RAN = True


class ChannelConfig(PretrainedConfig):
    model_type = "channel_agnostic_of_a_test"

    def __init__(self, width=6, return_channelwise_embeddings=False, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.return_channelwise_embeddings = return_channelwise_embeddings


class ChannelModel(PreTrainedModel):  # as OpenPhenom's, it does not call post_init
    config_class = ChannelConfig

    def __init__(self, config):
        super().__init__(config)
        self.return_channelwise_embeddings = config.return_channelwise_embeddings
        self.register_buffer("scale", torch.linspace(1, 2, config.width), persistent=False)
        self.project = nn.Linear(64 * 64, config.width)
        self.dropout = nn.Dropout(0.5)

    def predict(self, images):
        assert images.dtype == torch.uint8 and images.shape[-2:] == (256, 256)
        tokens = self.dropout(self.project(patches(images)).relu()) * self.scale  # (B, C, 16, width)
        context = tokens.mean(dim=(1, 2), keepdim=True)
        tokens = (tokens + context).mean(dim=2)
        return tokens.flatten(1) if self.return_channelwise_embeddings else tokens.mean(dim=1)


class RGBModel(PreTrainedModel):
    config_class = ChannelConfig

    def __init__(self, config):
        super().__init__(config)
        self.project = nn.Linear(3, config.width)

    def forward(self, pixel_values):
        from types import SimpleNamespace

        return SimpleNamespace(last_hidden_state=self.project(pixel_values.flatten(2).transpose(1, 2)))
"""
PATCHES = """
from .grid import SIDE


def patches(images):
    x = images.float() / 255
    return x.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE).flatten(4).flatten(2, 3)
"""


@pytest.fixture(scope="module", autouse=True)
def modules_cache(tmp_path_factory):
    """Where transformers copies code to before it runs it."""
    from transformers import dynamic_module_utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", list(sys.path))
        yield


def write_model(folder, name="ChannelModel"):
    """A folder as the hub holds one: code, config and weights; its model computed without us."""
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "code_of_test.py").write_text(CODE)
    (folder / "patches.py").write_text(PATCHES)
    (folder / "grid.py").write_text("SIDE = 64\n")
    where = {"AutoConfig": "code_of_test.ChannelConfig", "AutoModel": f"code_of_test.{name}"}
    config = {"model_type": "channel_agnostic_of_a_test", "width": 6, "auto_map": where, "architectures": [name]}
    (folder / "config.json").write_text(json.dumps(config))
    inputs = 64 * 64 if name == "ChannelModel" else 3
    draws = torch.Generator().manual_seed(0)
    weight = torch.randn(6, inputs, generator=draws) / inputs**0.5
    save_file({"project.weight": weight, "project.bias": torch.randn(6, generator=draws)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("hub") / "model")


def ran() -> bool:
    return any(name.endswith("code_of_test") for name in sys.modules)


def pixels(size=256):
    return torch.rand(3, 5, size, size, generator=torch.Generator().manual_seed(1))


def by_hand(folder, x):
    """Channelwise features (B, C, D) of [0, 1] images, computed from the weights."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    crops = (x * 255).round() / 255
    grid = crops.unfold(2, 64, 64).unfold(3, 64, 64).reshape(*x.shape[:2], 16, -1)
    tokens = (grid @ weights["project.weight"].T + weights["project.bias"]).relu() * torch.linspace(1, 2, 6)
    return tokens.mean(2) + tokens.mean((1, 2))[:, None]


def test_no_code_runs_without_the_callers_word(folder, tmp_path):
    assert not ran()
    for options in ({}, {"pretrained": True}, {"trust_remote_code": False}):
        with pytest.raises(ValueError, match=r"needs its own code \(code_of_test.*trust_remote_code=True"):
            create_encoder("per_channel", backbone=f"hf:{folder}", **options)
    screen = write_screen(tmp_path / "screen", screen_rows()[:1])
    result = CliRunner().invoke(app, ["features", f"hf:{folder}", str(screen), "--out", str(tmp_path / "f")])
    assert result.exit_code == 1
    assert f"error: hf:{folder} needs its own code (code_of_test." in result.stderr
    assert "--trust-remote-code" in result.stderr
    assert not ran()
    assert not (tmp_path / "f").exists()


def test_a_text_tower_never_runs_code(folder, monkeypatch):
    from morphoclip.models import HuggingFaceTextEncoder

    monkeypatch.setattr("builtins.input", lambda question: "y")  # transformers asks where nobody said no
    with pytest.raises((ValueError, OSError)):
        HuggingFaceTextEncoder(str(folder))
    assert not ran()


@pytest.fixture(scope="module")
def encoder(folder):
    options = {"pretrained": True, "trust_remote_code": True}
    return create_encoder("per_channel", backbone=f"hf:{folder}", **options)


def test_channels_are_described_as_the_model_itself_does(encoder, folder):
    assert encoder.backbone.feature_shape == (5, 6)
    features = encoder.forward_tokens(pixels())
    torch.testing.assert_close(features, by_hand(folder, pixels()))
    model, _, _ = vision_model(str(folder), trust_remote_code=True)
    model.eval().return_channelwise_embeddings = True
    direct = model.predict((pixels() * 255).round().to(torch.uint8))
    assert torch.equal(encoder(pixels()), direct)
    assert torch.equal(encoder.train()(pixels()), direct)  # frozen: its dropout stays off
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder(pixels(64)).shape == (3, 30)  # other crops are resized to 256


def test_a_model_that_knows_rgb_alone_sees_each_channel_as_grey(tmp_path):
    folder = write_model(tmp_path / "rgb_model", "RGBModel")
    encoder = create_encoder(
        "per_channel", backbone=f"hf:{folder}", image_size=32, pretrained=True, trust_remote_code=True
    )
    x = pixels(32)
    changed = x.clone()
    changed[:, 2] = 0.3
    same = (encoder.forward_tokens(x) == encoder.forward_tokens(changed)).all(2)
    assert same.tolist() == [[True, True, False, True, True]] * 3
    twin = create_encoder(**encoder.config, trust_remote_code=True)
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(twin(x), encoder(x))


def test_an_exported_encoder_runs_code_on_the_word_of_who_loads_it(encoder, folder, tmp_path):
    made = export_encoder(encoder, tmp_path / "encoder")
    config = json.loads((made / "config.json").read_text())
    assert "trust_remote_code" not in config["encoder"]
    with pytest.raises(ValueError, match=rf"hf:{folder} needs its own code"):
        load_encoder(made)
    config["encoder"]["trust_remote_code"] = True  # a folder cannot say it
    (made / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="needs its own code"):
        load_encoder(made)
    del config["encoder"]["trust_remote_code"]
    (made / "config.json").write_text(json.dumps(config))
    again = load_encoder(made, trust_remote_code=True)
    assert torch.equal(again(pixels()), encoder(pixels()))
    assert encoder_hash(again) == config["sha256"] == encoder_hash(encoder)
    weights = (folder / "model.safetensors").rename(tmp_path / "weights")  # only code comes from the model's folder
    assert torch.equal(load_encoder(made, trust_remote_code=True)(pixels()), encoder(pixels()))
    weights.rename(folder / "model.safetensors")


def test_every_command_that_reads_an_encoder_takes_the_word(encoder, tmp_path):

    made = export_encoder(encoder, tmp_path / "encoder")
    screen = write_screen(tmp_path / "screen", screen_rows()[:2])
    export = ["export", str(made), "--to", str(tmp_path / "copied")]
    for command in (
        export,
        ["attention", str(made), str(screen / "load_data.csv"), "--out", str(tmp_path / "a.png")],
        ["query", str(made), "--profiles", str(tmp_path / "p.parquet"), "--text", "DMSO"],
    ):
        told = CliRunner().invoke(app, [*command, "--trust-remote-code"])
        assert "needs its own code" not in told.output
        assert told.exit_code != 2, told.output  # an option it knows
    assert encoder_hash(load_encoder(tmp_path / "copied", trust_remote_code=True)) == encoder_hash(encoder)
    untold = CliRunner().invoke(app, [*export[:-1], str(tmp_path / "other")])
    assert untold.exit_code == 1
    assert "--trust-remote-code" in untold.stderr
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        configs = [
            hydra.compose("evaluate", [f"encoder_folder={made}", f"dataset={screen}", f"trust_remote_code={word}"])
            for word in ("true", "false")
        ]
    assert len(read_arm(configs[0], Protocol()).table) == 2
    with pytest.raises(ValueError, match="needs its own code"):
        read_arm(configs[1], Protocol())


@pytest.mark.parametrize("kind", ["AutoConfig", "AutoModel", "AutoImageProcessor"])
def test_code_of_another_repository_is_refused(kind, tmp_path):
    """A revision pins what is in the repository itself."""
    folder = write_model(tmp_path / "model", "RGBModel")
    name = "preprocessor_config.json" if kind == "AutoImageProcessor" else "config.json"
    config = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    config.setdefault("auto_map", {})[kind] = "other/repository--code_of_test.Anything"
    (folder / name).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"code of another repository \(other/repository--code_of_test"):
        create_encoder("per_channel", backbone=f"hf:{folder}", image_size=32, trust_remote_code=True)


def test_what_cannot_be_built_is_named(tmp_path):
    from safetensors.torch import save_file

    folder = write_model(tmp_path / "no_model")
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]["AutoModel"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not for AutoModel"):
        create_encoder("per_channel", backbone=f"hf:{folder}", trust_remote_code=True)

    folder = write_model(tmp_path / "wrong_model")
    save_file({"other": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit the model its code builds"):
        create_encoder("per_channel", backbone=f"hf:{folder}", pretrained=True, trust_remote_code=True)


def test_the_features_command(folder, tmp_path):
    screen = write_screen(tmp_path / "screen", screen_rows()[:3])
    command = ["features", f"hf:{folder}", str(screen), "--out", str(tmp_path / "features"), "--dtype", "float32"]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", "--trust-remote-code", "--revision", "main"])
    assert result.exit_code == 0, result.output
    dataset, written = ShardDataset(screen), FeatureDataset(tmp_path / "features")
    rows = np.arange(len(dataset))
    crops = (torch.from_numpy(values) for values in (dataset.read(rows), *dataset.intensities(rows)))
    channels = len(dataset.channels)
    options = {"pretrained": True, "trust_remote_code": True}
    encoder = create_encoder("per_channel", channels, channels=dataset.channels, backbone=f"hf:{folder}", **options)
    expected = encoder(encoder.preprocess(*crops)).unflatten(1, (channels, 6))
    assert written.shape == (channels, 6)
    np.testing.assert_allclose(written.read(rows), expected, rtol=1e-5, atol=1e-6)
    assert written.manifest["features"]["encoder"]["revision"] == "main"
    wrong = CliRunner().invoke(app, ["features", "timm:resnet18", str(screen), "--out", "f", "--revision", "main"])
    assert wrong.exit_code == 2
