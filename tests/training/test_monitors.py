"""Collapse monitors against closed forms."""

import pytest
import torch
import torch.nn.functional as F

from morphoclip.training.monitors import cross_plate_knn, mean_cosine, prototype_usage, rank_me


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


def test_cross_plate_knn_looks_on_other_plates_only():
    # Perturbations 0 and 1 on both plates; 2 on one alone, so it is not asked. A plate's offset changes nothing.
    profiles = torch.tensor([[4.0, 0.0], [0.0, 4.0], [1.0, 1.0], [3.0, 0.1], [0.1, 3.0], [-5.0, -5.0]])
    profiles[3:] += torch.tensor([100.0, -70.0])
    perturbation, plate = torch.tensor([0, 1, 2, 0, 1, 3]), torch.tensor([7, 7, 7, 9, 9, 9])
    knn, chance = cross_plate_knn(profiles, perturbation, plate)
    assert knn.item() == 1
    assert chance.item() == pytest.approx(1 / 3)
    swapped = profiles[[0, 1, 2, 4, 3, 5]]
    assert cross_plate_knn(swapped, perturbation, plate)[0].item() == 0
