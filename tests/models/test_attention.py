"""Attention maps against the probabilities by which the layer's own fused kernel mixes its values."""

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from morphoclip.models import FeatureEncoder, create_encoder
from morphoclip.models.attention import attention_maps, check_attention

SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2}
SETTINGS = {
    "vit_tiny_patch16_224": {"depth": 2},
    "vit_small_patch14_reg4_dinov2": SMALL | {"patch_size": 16},  # class token and four registers
    "vit_demo": {"embed_dim": 16, "depth": 2, "heads": 2},
    "covariance_vit": {"embed_dim": 16, "depth": 2, "heads": 2, "covariance_dim": 4},
    "channel_vit": {"embed_dim": 16, "depth": 2, "heads": 2},
    "eva02_tiny_patch14_224": SMALL | {"patch_size": 16},  # rotary positions
    "vit_small_patch16_dinov3": SMALL,  # and four registers
    "beit_base_patch16_224": SMALL,
}
SETTINGS = {name: {"image_size": 32} | settings for name, settings in SETTINGS.items()}


def pixels(count=2):
    return torch.rand(count, 5, 32, 32, generator=torch.Generator().manual_seed(0))


class Fused(TorchFunctionMode):
    """Queries, keys and mask that the fused kernel is called with, as probabilities (B, heads, N, N), block by block."""

    def __init__(self):
        super().__init__()
        self.probabilities = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            q, k = args[:2]
            mask = kwargs.get("attn_mask")
            logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + (0 if mask is None else mask)
            self.probabilities.append(logits.softmax(dim=-1))
        return function(*args, **(kwargs or {}))


def fused_probabilities(encoder, x, block):
    with torch.no_grad(), Fused() as fused:
        encoder(x)
    assert len(fused.probabilities) == 2
    return fused.probabilities[block]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("block", [0, -1])
def test_maps_are_the_fused_kernels_probabilities(name, block):
    torch.manual_seed(0)
    encoder = create_encoder(name, **SETTINGS[name]).eval()
    matrix = fused_probabilities(encoder, pixels(), block)
    prefix = encoder.num_prefix_tokens
    received = matrix[:, :, 0, prefix:] if prefix else matrix.mean(dim=2)
    if name == "channel_vit":
        received = received.unflatten(2, (5, -1)).sum(dim=2)
    expected = received / received.mean(dim=2, keepdim=True)
    maps = attention_maps(encoder, pixels(), block)
    torch.testing.assert_close(maps, expected.view_as(maps))
    torch.testing.assert_close(maps.mean(dim=(2, 3)), torch.ones(maps.shape[:2]))
    torch.testing.assert_close(fused_probabilities(encoder, pixels(), block), matrix)  # fused as before


@pytest.fixture
def dinov2_folder(tmp_path):
    """A Hugging Face model on disk: one class token, 2 x 2 patches."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=16)
    Dinov2Model(config).save_pretrained(tmp_path / "dinov2")
    return f"hf:{tmp_path / 'dinov2'}"


@pytest.mark.parametrize("kind", ["timm", "hugging face"])
def test_a_frozen_backbone_has_a_map_a_channel(kind, dinov2_folder):
    torch.manual_seed(0)
    backbone = dinov2_folder if kind == "hugging face" else "vit_tiny_patch16_224"
    encoder = create_encoder("per_channel", backbone=backbone, image_size=32, pretrained=kind == "hugging face").eval()
    count = 2 if kind == "hugging face" else 12
    with torch.no_grad(), Fused() as fused:
        encoder(pixels())
    assert len(fused.probabilities) == count
    received = fused.probabilities[0][:, :, 0, 1:].mean(dim=1)  # (B·C, patches), the mean over heads
    expected = (received / received.mean(dim=1, keepdim=True)).view(2, 5, 2, 2)
    torch.testing.assert_close(attention_maps(encoder, pixels(), 0), expected)
    # Each channel's map is its own: another DNA image leaves the others' alone.
    other = pixels()
    other[:, 0] = 1 - other[:, 0]
    changed = (attention_maps(encoder, other, 0) != attention_maps(encoder, pixels(), 0)).flatten(2).any(2)
    assert changed[:, 0].all()
    assert not changed[:, 1:].any()
    with pytest.raises(ValueError, match=f"block {count} does not exist: the encoder has {count}"):
        check_attention(encoder, count)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "intensity_statistics"])
def test_an_encoder_without_attention_among_all_patches_says_so(name):
    with pytest.raises(ValueError, match="no attention among all patches"):
        attention_maps(create_encoder(name).eval(), pixels())


def test_sam_attends_within_windows():
    encoder = create_encoder("samvit_base_patch16_224", image_size=224, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(ValueError, match="no attention among all patches"):
        attention_maps(encoder.eval(), torch.rand(1, 5, 224, 224))


def test_an_encoder_of_cached_features_names_the_one_to_give():
    encoder = FeatureEncoder("profile_mlp", channels=["profile"], feature_dim=4, embed_dim=2, width=8, blocks=1)
    with pytest.raises(ValueError, match=r"profile_mlp takes cached features.* give the encoder that computed them"):
        attention_maps(encoder, torch.rand(2, 1, 4))


def test_a_block_that_is_not_there_is_refused():
    encoder = create_encoder("vit_demo", **SETTINGS["vit_demo"])
    for block in (2, -3):
        with pytest.raises(ValueError, match=f"block {block} does not exist: the encoder has 2, 0 to 1"):
            check_attention(encoder, block)
