"""Gated attention pooling: the formula, padding, order, bags of one."""

import pytest
import torch

from morphoclip.models import GatedAttentionPool


def pool(dim=6):
    torch.manual_seed(0)
    return GatedAttentionPool(dim, hidden=4).double()


def bags(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_equals_the_formula():
    attention, x = pool(), bags(2, 5, 6)
    pooled, weights = attention(x, return_weights=True)
    for b in range(2):
        v, u, w = attention.value.weight, attention.gate.weight, attention.score.weight[0]
        scores = torch.stack([w @ (torch.tanh(v @ h) * torch.sigmoid(u @ h)) for h in x[b]])
        torch.testing.assert_close(weights[b], scores.softmax(0))
        torch.testing.assert_close(pooled[b], scores.softmax(0) @ x[b])


def test_channels_are_pooled_apart_with_one_attention():
    attention, x = pool(), bags(2, 5, 3, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    pooled, weights = attention(x, mask, return_weights=True)
    assert weights.shape == (2, 5, 3)
    for c in range(3):
        torch.testing.assert_close(pooled[:, c], attention(x[:, :, c], mask))


@pytest.mark.parametrize("shape", [(2, 4, 6), (2, 4, 3, 6)])
def test_padding_weighs_exactly_nothing_even_if_it_is_nan(shape):
    attention, x = pool(), bags(*shape)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    padded = x.clone()
    padded[1, 2:] = float("nan")
    pooled, weights = attention(padded.requires_grad_(), mask, return_weights=True)
    assert (weights[1, 2:] == 0).all()
    torch.testing.assert_close(pooled[1], attention(x[1:, :2])[0])
    pooled.sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


def test_order_does_not_matter_and_a_bag_of_one_is_itself():
    attention, x = pool(), bags(3, 5, 6)
    torch.testing.assert_close(attention(x), attention(x[:, [3, 1, 4, 0, 2]]))
    torch.testing.assert_close(attention(x[:, :1]), x[:, 0], rtol=0, atol=0)


def test_an_all_padding_bag_is_an_error():
    with pytest.raises(ValueError, match=r"bags \[1\]"):
        pool()(bags(2, 3, 6), torch.tensor([[True, False, False], [False, False, False]]))


def test_groups_are_pooled_apart():
    attention, x = pool(), bags(2, 4, 6)
    group = torch.tensor([[7, 2, 7, 2], [5, 5, 5, 9]])
    mask = torch.tensor([[True, True, True, True], [True, True, False, True]])
    x[1, 2] = float("nan")
    pooled, is_first = attention.pool_groups(x.requires_grad_(), group, mask)
    assert is_first.tolist() == [[True, True, False, False], [True, False, False, True]]
    for row, place, members in ((0, 0, [0, 2]), (0, 1, [1, 3]), (1, 0, [0, 1]), (1, 3, [3])):
        torch.testing.assert_close(pooled[row, place], attention(x[row : row + 1, members])[0])
    pooled[is_first].sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())
