"""Collapse monitors against closed forms."""

import pytest
import torch
import torch.nn.functional as F

from morphoclip.training.monitors import mean_cosine, prototype_usage, rank_me


def test_rank_me_counts_equal_directions():
    assert rank_me(torch.eye(16)[:, :5]).item() == pytest.approx(5, rel=1e-3)
    assert rank_me(torch.ones(32, 8)).item() == pytest.approx(1, rel=1e-3)


def test_mean_cosine_is_the_mean_over_pairs():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    cosines = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    expected = cosines[~torch.eye(9, dtype=torch.bool)].mean()
    torch.testing.assert_close(mean_cosine(x), expected)


def test_prototype_usage_is_the_share_of_prototypes_in_use():
    assert prototype_usage(torch.eye(8)).item() == pytest.approx(1)
    assert prototype_usage(torch.eye(8)[:2]).item() == pytest.approx(2 / 8)
