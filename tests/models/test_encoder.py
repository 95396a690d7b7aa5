"""Encoders: the pixels' way in, five channels in any backbone, tokens, and rebuilding from config."""

import pytest
import torch

from morphoclip.models import create_encoder

SMALL = {
    "vit_demo": {"image_size": 32, "embed_dim": 32, "depth": 2, "heads": 2},
    "vit_tiny_patch16_224": {"image_size": 32, "depth": 2},
    "channel_vit": {"image_size": 32, "embed_dim": 32, "depth": 2, "heads": 2},
    "covariance_vit": {"image_size": 32, "embed_dim": 32, "depth": 2, "heads": 2, "covariance_dim": 4},
    "resnet18": {},
    "convnext_atto": {},
}


def pixels(count=3, channels=5, size=32):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_scale_clips_between_the_limits_of_each_crop_and_channel():
    images = torch.tensor([0, 100, 150, 200, 65535]).to(torch.uint16).expand(2, 5, 1, 5)
    low, high = torch.full((2, 5), 100.0), torch.full((2, 5), 200.0)
    high[1, 3] = 300.0
    scaled = create_encoder("vit_demo", **SMALL["vit_demo"]).scale(images, low, high)
    expected = torch.tensor([0, 0, 0.5, 1, 1])
    torch.testing.assert_close(scaled[0, 3, 0], expected)
    torch.testing.assert_close(scaled[1, 3, 0], torch.tensor([0, 0, 0.25, 0.5, 1]))


def test_scale_leaves_float_crops_untouched():
    images = pixels()
    before = images.clone()
    create_encoder("vit_demo", **SMALL["vit_demo"]).preprocess(images, torch.full((3, 5), 0.2), torch.ones(3, 5))
    assert torch.equal(images, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_grey_levels_survive_scaling_in_any_precision(dtype):
    """3,000 grey levels far from 0 stay apart: in bf16 itself they would become 463."""
    levels = torch.arange(20000, 23000).to(torch.uint16).view(1, 1, 50, 60).expand(1, 5, 50, 60)
    encoder = create_encoder("vit_demo", **SMALL["vit_demo"]).to(dtype)
    scaled = encoder.scale(levels, torch.full((1, 5), 20000.0), torch.full((1, 5), 23000.0))
    assert len(scaled[0, 0].unique()) == 3000
    assert encoder.standardise(scaled).dtype == dtype


def test_preprocess_is_scale_then_standardise():
    encoder = create_encoder("vit_demo", mean=[0.1, 0.2, 0.3, 0.4, 0.5], std=0.5, **SMALL["vit_demo"])
    images = (pixels() * 1000).to(torch.uint16)
    out = encoder.preprocess(images, torch.zeros(3, 5), torch.full((3, 5), 1000.0))
    torch.testing.assert_close(out[:, 2], (images[:, 2].float() / 1000 - 0.3) / 0.5)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("projection", [None, 7])
def test_every_backbone_embeds_five_channels_and_trains_all_its_parameters(name, projection):
    encoder = create_encoder(name, projection=projection, **SMALL[name])
    embeddings = encoder(encoder.standardise(pixels()))
    assert embeddings.shape == (3, encoder.embed_dim)
    assert projection in (None, encoder.embed_dim)
    embeddings.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_config_rebuilds_the_encoder(name):
    encoder = create_encoder(name, mean=0.1, std=0.2, projection=6, **SMALL[name]).eval()
    twin = create_encoder(**encoder.config).eval()
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(encoder.standardise(pixels())), twin(twin.standardise(pixels())))


def test_config_keeps_what_was_not_asked_so_that_folders_outlive_new_defaults(monkeypatch):
    config = create_encoder("vit_demo", image_size=32).config
    assert create_encoder("vit_demo", image_size=32, depth=1).config == config | {"depth": 1}
    monkeypatch.setattr("morphoclip.models.vit_demo.vit_demo.__defaults__", (5, 64, 64, 1, 2, 1.0, (4, 8)))
    assert create_encoder("vit_demo", image_size=32).config != config
    assert create_encoder(**config).config == config


def test_channels_other_than_five():
    encoder = create_encoder("vit_demo", in_channels=3, channels=["DNA", "AGP", "Mito"], **SMALL["vit_demo"])
    assert encoder.channels == ("DNA", "AGP", "Mito")
    assert encoder(pixels(channels=3)).shape == (3, 32)


@pytest.mark.parametrize("name", ["vit_demo", "vit_tiny_patch16_224", "channel_vit"])
def test_tokens_pool_to_the_embedding_and_masked_patches_do_not_matter(name):
    encoder = create_encoder(name, **SMALL[name]).eval()
    x = pixels()
    tokens = encoder.forward_tokens(x)
    torch.testing.assert_close(encoder.backbone.forward_head(tokens), encoder(x))
    patches = 4 if name != "vit_demo" else tokens.shape[1]
    everything = torch.arange(patches).expand(3, -1)
    torch.testing.assert_close(encoder.forward_tokens(x, everything), tokens)


def test_a_masked_patch_does_not_reach_the_others():
    encoder = create_encoder("vit_tiny_patch16_224", **SMALL["vit_tiny_patch16_224"]).eval()
    x, keep = pixels(), torch.tensor([[0, 3], [1, 2], [2, 0]])
    other = x.clone()
    other[0, :, 16:, :16] = 0.5  # patch 2 of the first crop, which is masked
    torch.testing.assert_close(encoder.forward_tokens(x, keep), encoder.forward_tokens(other, keep))


def test_a_convolutional_backbone_has_tokens_but_none_to_mask():
    encoder = create_encoder("resnet18").eval()
    tokens = encoder.forward_tokens(pixels(size=64))
    assert tokens.shape == (3, 4, 512)
    torch.testing.assert_close(tokens.mean(1), encoder(pixels(size=64)))
    with pytest.raises(TypeError, match="no patch tokens"):
        encoder.forward_tokens(pixels(size=64), torch.zeros(3, 1, dtype=torch.int64))


def test_local_rgb_weights_are_spread_over_the_channels(tmp_path):
    rgb = create_encoder("resnet18", in_channels=3, channels=["R", "G", "B"])
    torch.save(rgb.backbone.state_dict(), tmp_path / "rgb.pth")
    five = create_encoder("resnet18", weights=tmp_path / "rgb.pth")
    assert torch.equal(five.backbone.layer1[0].conv1.weight, rgb.backbone.layer1[0].conv1.weight)
    kernel = rgb.backbone.conv1.weight
    torch.testing.assert_close(five.backbone.conv1.weight, kernel[:, [0, 1, 2, 0, 1]] * 3 / 5)
    assert "weights" not in five.config


def test_wrong_choices_are_named():
    with pytest.raises(ValueError, match="no encoder 'vit_dmo'"):
        create_encoder("vit_dmo")
    with pytest.raises(ValueError, match="std lists 2"):
        create_encoder("vit_demo", std=[0.1, 0.2])
    with pytest.raises(ValueError, match="stride 16"):
        create_encoder("vit_demo", image_size=40)
    for name in ("vit_tiny_patch16_224", "channel_vit"):
        with pytest.raises(
            ValueError, match=f"{name} has patches of 16 pixels, which do not divide image_size=40: set"
        ):
            create_encoder(name, image_size=40)
