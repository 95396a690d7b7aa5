"""ChannelViT: channels are tokens, positions are shared, and training sees subsets of channels."""

import pytest
import torch

from morphoclip.models import create_encoder

SMALL = {"image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "heads": 2}


def pixels(count=3, size=16):
    return torch.rand(count, 5, size, size, generator=torch.Generator().manual_seed(0))


def test_swapping_channels_with_their_embeddings_changes_nothing():
    """One projection and one set of positions for all channels: only the embedding tells a channel."""
    encoder = create_encoder("channel_vit", **SMALL).eval()
    expected = encoder(pixels())
    order = torch.tensor([3, 0, 4, 1, 2])
    assert not torch.allclose(encoder(pixels()[:, order]), expected, atol=1e-4)
    with torch.no_grad():
        encoder.backbone.channel_embedding.copy_(encoder.backbone.channel_embedding[order])
    torch.testing.assert_close(encoder(pixels()[:, order]), expected, atol=1e-5, rtol=1e-4)


def test_tokens_are_the_patches_of_one_channel_after_another():
    encoder = create_encoder("channel_vit", **SMALL).eval()
    assert encoder.forward_tokens(pixels()).shape == (3, 1 + 5 * 4, 16)
    keep = torch.tensor([[0, 3], [1, 2], [2, 0]])
    tokens = encoder.forward_tokens(pixels(), keep)
    assert tokens.shape == (3, 1 + 5 * 2, 16)
    other = pixels()
    other[0, :, 8:, :8] = 0.5  # patch 2 of the first crop, which is masked
    torch.testing.assert_close(encoder.forward_tokens(other, keep), tokens)


def test_channels_not_shown_have_no_say():
    encoder = create_encoder("channel_vit", **SMALL).eval()
    shown = torch.tensor([[0, 3], [1, 2], [0, 4]])
    keep = torch.tensor([[0, 3], [1, 2], [2, 0]])
    assert encoder.forward_tokens(pixels(), keep, shown).shape == (3, 1 + 2 * 2, 16)
    expected, other = encoder(pixels(), shown=shown), pixels()
    other[0, [1, 2, 4]] = 0.5
    torch.testing.assert_close(encoder(other, shown=shown), expected)
    other[0, 3] = 0.5
    assert not torch.allclose(encoder(other, shown=shown)[0], expected[0], atol=1e-4)


def test_other_encoders_see_all_channels():
    encoder = create_encoder("vit_demo", image_size=16, embed_dim=16, depth=1, heads=2)
    with pytest.raises(TypeError, match="only channel_vit"):
        encoder(pixels(), shown=torch.zeros(3, 1, dtype=torch.int64))


def test_other_sizes_get_interpolated_positions():
    encoder = create_encoder("channel_vit", **SMALL).eval()
    assert encoder.forward_tokens(pixels(size=24)).shape == (3, 1 + 5 * 9, 16)


def test_mean_pooling_and_a_wrong_pool():
    encoder = create_encoder("channel_vit", global_pool="avg", **SMALL).eval()
    torch.testing.assert_close(encoder(pixels()), encoder.forward_tokens(pixels())[:, 1:].mean(1))
    with pytest.raises(ValueError, match="use token or avg"):
        create_encoder("channel_vit", global_pool="mean", **SMALL)
