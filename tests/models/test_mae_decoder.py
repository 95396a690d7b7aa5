"""The decoder's layout: patches as MAELoss expects them, positions, and every token in its place."""

import pytest
import torch

from morphoclip.models import MAEDecoder
from morphoclip.models.mae_decoder import patchify, sin_cos_positions, unpatchify


def test_patches_are_row_by_row_with_channels_last():
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            expected = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].permute(0, 2, 3, 1)
            assert torch.equal(patches[:, 3 * row + column], expected.flatten(1))
    assert torch.equal(unpatchify(patches, 2, (2, 3)), images)


def test_positions_differ_and_their_products_depend_on_the_offset_only():
    positions = sin_cos_positions((4, 5), 16).view(4, 5, 16)
    flat = positions.flatten(0, 1)
    assert torch.cdist(flat, flat).add(torch.eye(20)).min() > 0.1
    product = (positions[:-1, :-1] * positions[1:, 1:]).sum(-1)
    torch.testing.assert_close(product, product[0, 0].expand_as(product))
    with pytest.raises(ValueError, match="multiple of 4"):
        sin_cos_positions((2, 2), 6)


def test_the_order_of_visible_tokens_does_not_matter_to_where_they_stand():
    torch.manual_seed(0)
    decoder = MAEDecoder(8, (2, 3), 5, width=16, depth=2, heads=2).eval()
    tokens = torch.randn(1, 4, 8)  # one prefix token, patches 5, 0, 3
    order = torch.tensor([[5, 0, 3, 1, 2, 4]])
    shuffled = decoder(tokens[:, [0, 3, 1, 2]], torch.tensor([[3, 5, 0, 4, 2, 1]]), 1)
    torch.testing.assert_close(decoder(tokens, order, 1), shuffled)
    moved = decoder(tokens, torch.tensor([[0, 5, 3, 1, 2, 4]]), 1)
    assert not torch.allclose(decoder(tokens, order, 1), moved, atol=1e-3)
