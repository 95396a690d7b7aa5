"""The frozen RGB baseline: each channel on its own, nothing to train, rebuilt without a hub."""

import pytest
import timm
import torch

from morphoclip.models import create_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random DINOv2 as save_pretrained leaves one on disk."""
    from transformers import Dinov2Config, Dinov2Model

    path = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["timm", "hugging face"])
def encoder(request, folder):
    if request.param == "timm":
        return create_encoder("per_channel", backbone="resnet18", image_size=32)
    return create_encoder("per_channel", backbone=f"hf:{folder}", image_size=28, pretrained=True)


def pixels(count=2, size=32):
    return torch.rand(count, 5, size, size, generator=torch.Generator().manual_seed(0))


def test_each_channel_is_described_by_itself(encoder):
    features = encoder(pixels())
    channels, width = encoder.backbone.feature_shape
    assert features.shape == (2, channels * width) == (2, encoder.embed_dim)
    torch.testing.assert_close(encoder.forward_tokens(pixels()).flatten(1), features)
    other = pixels()
    other[:, 3] = 0.5
    changed = (encoder(other) != features).view(2, channels, width).any(dim=2)
    assert changed.tolist() == [[False, False, False, True, False]] * 2


def test_nothing_trains_and_training_mode_changes_nothing(encoder):
    expected = encoder.eval()(pixels())
    assert not any(p.requires_grad for p in encoder.parameters())
    torch.testing.assert_close(encoder.train()(pixels()), expected)
    assert not encoder(pixels()).requires_grad


def test_config_and_weights_rebuild_it_where_the_folder_is_gone(encoder):
    config = dict(encoder.config)
    if config["backbone"].startswith("hf:"):
        config["backbone"] = "hf:/nowhere"
    twin = create_encoder(**config)
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(twin(pixels()), encoder(pixels()))


def test_timm_weights_from_a_local_file(tmp_path):
    """The features of a channel are those timm gives for the grey image, standardised as that model expects."""
    model = timm.create_model("resnet18", num_classes=0).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = create_encoder("per_channel", backbone="resnet18", image_size=32, weights=tmp_path / "weights.pth")
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    grey = pixels()[:, 2:3].expand(-1, 3, -1, -1)
    torch.testing.assert_close(encoder.forward_tokens(pixels())[:, 2], model((grey - mean) / std))


def test_wrong_names_are_reported(folder):
    with pytest.raises(ValueError, match="hf:<hub id or folder>"):
        create_encoder("per_channel", backbone="dinov2")
    with pytest.raises(ValueError, match="give the Hugging Face folder as backbone"):
        create_encoder("per_channel", backbone=f"hf:{folder}", weights="w.pth")
