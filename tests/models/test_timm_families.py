"""Networks of timm's families as encoders: any number of channels, the right width, keywords that they take."""

from __future__ import annotations

import pytest
import timm
import torch

from morphoclip.cli.hydra_app import main
from morphoclip.models import create_encoder
from morphoclip.models.encoder import width_of
from morphoclip.models.norm import BatchNorm, over_ranks
from tests.methods import tiny

FAMILIES = {
    "ViT": {"name": "vit_tiny_patch16_224", "image_size": 32, "options": {"patch_size": 8, "depth": 1}},
    "ResNet": {"name": "resnet10t"},
    "ConvNeXt": {"name": "convnext_atto", "options": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}},
    "Swin": {
        "name": "swin_tiny_patch4_window7_224",
        "image_size": 32,
        "options": {"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
    },
    "EfficientNet": {"name": "test_efficientnet"},
}
NAMES = {
    3: ["DNA", "AGP", "Mito"],
    5: ["DNA", "ER", "RNA", "AGP", "Mito"],
    6: ["DNA", "ER", "RNA", "AGP", "Mito", "BF"],
}


@pytest.mark.parametrize("channels", NAMES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_embeds_any_number_of_channels(family, channels):
    torch.manual_seed(0)
    encoder = create_encoder(**FAMILIES[family], in_channels=channels, channels=NAMES[channels])
    x = torch.rand(3, channels, 32, 32)
    embeddings = encoder(x)
    assert embeddings.shape == (3, encoder.embed_dim)
    embeddings.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    tokens = encoder.forward_tokens(x)
    width = encoder.backbone.num_features
    assert tokens.shape[0] == 3
    assert tokens.shape[2] == width
    twin = create_encoder(**encoder.config).eval()
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(twin(x), encoder.eval()(x))


def test_tokens_of_a_map_with_channels_last_pool_to_the_embedding():
    encoder = create_encoder(**FAMILIES["Swin"]).eval()
    x = torch.rand(2, 5, 32, 32)
    torch.testing.assert_close(encoder.forward_tokens(x).mean(1), encoder(x))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_with_methods_that_need_no_tokens(family):
    method, gradients = tiny.simclr(encoder=FAMILIES[family]), tiny.Gradients()
    crops = tiny.bags(slice(0, 2))
    crops.images = crops.images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    tiny.trainer(1, callbacks=[gradients]).fit(method, tiny.loader(crops))
    assert gradients.silent is not None
    assert all("bias" in name or "weight" in name for name in gradients.silent)  # zero-initialised branches only


@pytest.mark.parametrize("make", [tiny.mae, tiny.cwa_msn])
@pytest.mark.parametrize("family", ["ResNet", "ConvNeXt", "Swin", "EfficientNet"])
def test_a_method_that_masks_says_so_in_one_line(make, family):
    with pytest.raises(
        ValueError, match=r"masks patches, which .* cannot leave out: use one of timm's vision"
    ) as error:
        make(encoder=FAMILIES[family])
    assert "\n" not in str(error.value)


def test_the_width_is_that_of_what_comes_out():
    model = timm.create_model("mobilenetv3_small_050", num_classes=0)
    assert model.num_features != model.head_hidden_size == width_of(model) == model(torch.rand(2, 3, 32, 32)).shape[1]


def test_batch_norms_with_an_activation_are_joined_over_ranks_and_stay_the_same():
    torch.manual_seed(0)
    plain = timm.create_model("test_efficientnet", num_classes=0).eval()
    names, x = list(plain.state_dict()), torch.rand(2, 3, 32, 32)
    expected = plain(x)
    joined = over_ranks(plain)
    assert list(joined.state_dict()) == names
    assert torch.equal(joined.eval()(x), expected)
    norms = [part for part in joined.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(part, BatchNorm) for part in norms)


def composed(monkeypatch, *arguments):
    seen = []
    monkeypatch.setattr("morphoclip.experiment.run.run", seen.append)
    main("train", list(arguments))
    return seen[0]


@pytest.mark.parametrize(
    ("encoder", "left"),
    [
        (["encoder=channel_vit"], "channel_vit does not take dynamic_img_size=False"),
        (
            ["encoder=timm", "encoder.name=convnext_tiny", "encoder.options={drop_path_rate: 0.1}"],
            "convnext_tiny does not take dynamic_img_size=False",
        ),
        (["encoder=vit_demo", "encoder.name=resnet18"], "resnet18 does not take embed_dim=128, depth=2, heads=4"),
    ],
)
def test_a_recipe_for_another_encoder_leaves_out_what_this_one_does_not_take(encoder, left, monkeypatch, capfd):
    config = composed(monkeypatch, "experiment=kim2025_simclr", "data.root=x", *encoder)
    assert "dynamic_img_size" not in config.encoder
    said = capfd.readouterr().out
    assert left in said
    assert said.strip().endswith("left out")


def test_what_is_typed_is_not_left_out(monkeypatch):
    typed = ["encoder=timm", "encoder.name=resnet18", "++encoder.dynamic_img_size=true"]
    config = composed(monkeypatch, "experiment=kim2025_simclr", "data.root=x", *typed)
    assert config.encoder.dynamic_img_size is True
    for name, key in (("resnet18", "dynamic_img_size"), ("efficientnet_b0", "channel_multiplier")):
        with pytest.raises(ValueError, match=f"encoder {name} does not take {key}"):
            create_encoder(name, options={key: True})
