"""NT-Xent against its closed form and an independent derivation."""

import math

import pytest
import torch

from morphoclip.losses import NTXentLoss


def by_loops(z1, z2, temperature):
    rows = torch.cat([z1, z2]).double()
    rows = rows / rows.norm(dim=1, keepdim=True)
    total = 0.0
    for i in range(len(rows)):
        positive = (i + len(z1)) % len(rows)
        terms = {k: math.exp(float(rows[i] @ rows[k]) / temperature) for k in range(len(rows)) if k != i}
        total -= math.log(terms[positive] / sum(terms.values()))
    return total / len(rows)


def test_equal_views_of_orthogonal_images_have_a_closed_form():
    z = torch.eye(6, dtype=torch.float64)
    expected = math.log(math.exp(1 / 0.2) + 2 * 6 - 2) - 1 / 0.2
    assert NTXentLoss(0.2)(z, z).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_the_sum_over_anchors_written_out(temperature):
    z1, z2 = torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert NTXentLoss(temperature)(z1, z2).item() == pytest.approx(by_loops(z1, z2, temperature), abs=1e-12)


def test_bf16_under_autocast_is_promoted():
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = NTXentLoss()(z1, z2)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, NTXentLoss()(z1.float(), z2.float()))
