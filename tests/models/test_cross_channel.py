"""CrossChannelFormer: size, channel identity, and an input left alone."""

import pytest
import torch

from morphoclip.models import CrossChannelFormer


def test_the_published_size_has_340_8_million_parameters():
    with torch.device("meta"):
        model = CrossChannelFormer(1536, channels=5, embed_dim=512, depth=12, heads=8)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 340.8


def test_channels_are_distinguished_and_the_input_is_not_changed():
    torch.manual_seed(0)
    model = CrossChannelFormer(16, channels=5, embed_dim=8, depth=2, heads=4).eval()
    x = torch.randn(3, 5, 16)
    before = x.clone()
    out = model(x)
    assert out.shape == (3, 8)
    assert torch.equal(x, before)
    assert not torch.allclose(out, model(x[:, [1, 0, 2, 3, 4]]), atol=1e-4)
    with torch.no_grad():
        model.channel_embedding.zero_()
    torch.testing.assert_close(model(x), model(x[:, [1, 0, 2, 3, 4]]))


def test_every_parameter_gets_a_gradient():
    model = CrossChannelFormer(8, channels=5, embed_dim=4, depth=1, heads=2)
    model(torch.randn(2, 5, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of heads"):
        CrossChannelFormer(10, heads=4)
