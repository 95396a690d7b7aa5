"""Attention maps against the probabilities that timm's own layer computes."""

import pytest
import torch

from morphoclip.models import create_encoder
from morphoclip.models.attention import attention_maps

SETTINGS = {
    "vit_tiny_patch16_224": {"image_size": 32, "depth": 2},
    "vit_demo": {"image_size": 32, "embed_dim": 16, "depth": 2, "heads": 2},
    "covariance_vit": {"image_size": 32, "embed_dim": 16, "depth": 2, "heads": 2, "covariance_dim": 4},
    "channel_vit": {"image_size": 32, "embed_dim": 16, "depth": 2, "heads": 2},
}


def pixels():
    return torch.rand(2, 5, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("block", [0, -1])
def test_maps_are_the_layers_own_probabilities(name, block):
    encoder = create_encoder(name, **SETTINGS[name]).eval()
    layer = getattr(encoder.backbone, "vit", encoder.backbone).blocks[block].attn
    layer.fused_attn = False  # so that the layer makes the matrix
    seen = []
    layer.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    maps = attention_maps(encoder, pixels(), block)
    (matrix,) = seen  # (B, heads, N, N)
    prefix = encoder.num_prefix_tokens
    received = matrix[:, :, 0, 1:] if prefix else matrix.mean(dim=2)
    if name == "channel_vit":
        received = received.unflatten(2, (5, -1)).sum(dim=2)
    expected = received / received.mean(dim=2, keepdim=True)
    torch.testing.assert_close(maps, expected.view_as(maps))
    torch.testing.assert_close(maps.mean(dim=(2, 3)), torch.ones(maps.shape[:2]))


def test_an_encoder_without_attention_says_so():
    with pytest.raises(TypeError, match="ResNet has no attention"):
        attention_maps(create_encoder("resnet18").eval(), pixels())
