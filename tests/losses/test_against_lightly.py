"""Values and gradients beside lightly 1.6, an oracle for one rank; where it departs from the papers, ours follows them."""

import pytest
import torch

from morphoclip.losses import DINOLoss, KoLeoLoss, MSNLoss, NTXentLoss

oracle = pytest.importorskip("lightly.loss", reason="uv sync --group dev installs lightly")


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def agree(ours, theirs, *leaves):
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    gradients = [torch.autograd.grad(loss, leaves, retain_graph=True) for loss in (ours, theirs)]
    for own, other in zip(*gradients, strict=True):
        assert other.any()
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.1, 0.2])
def test_nt_xent(temperature):
    z1, z2 = randn(7, 5), randn(7, 5, seed=1)
    agree(NTXentLoss(temperature)(z1, z2), oracle.NTXentLoss(temperature)(z1, z2), z1, z2)


def test_dino_over_three_steps_of_its_centre():
    ours, theirs = DINOLoss(9).double(), oracle.DINOLoss(9).double()
    for step, temperature in enumerate((0.04, 0.05, 0.07)):
        student = [randn(4, 9, seed=10 * step + view) for view in range(5)]
        teacher = [randn(4, 9, seed=10 * step + 5 + view).detach() for view in range(2)]
        agree(ours(student, teacher, temperature), theirs(teacher, student, temperature), *student)
        torch.testing.assert_close(ours.center, theirs.center[0])


def test_dinos_centre_rests_in_evaluation_where_lightlys_moves():
    ours, theirs = DINOLoss(9).double().eval(), oracle.DINOLoss(9).double().eval()
    views = [randn(4, 9, seed=view).detach() for view in range(2)]
    ours(views, views, 0.04)
    theirs(views, views, 0.04)
    assert not ours.center.any()
    assert theirs.center.any()


def test_koleo():
    x = randn(8, 4)
    agree(KoLeoLoss()(x), oracle.KoLeoLoss()(x), x)


@pytest.mark.parametrize("iterations", [0, 3])
def test_msn(iterations):
    anchors, targets, prototypes = randn(12, 6), randn(4, 6, seed=1).detach(), randn(5, 6, seed=2)
    ours = MSNLoss(0.1, 0.25, 0.7, iterations)(anchors, targets, prototypes)
    theirs = oracle.MSNLoss(0.1, iterations, 0.7)(anchors, targets, prototypes, target_sharpen_temperature=0.25)
    agree(ours, theirs, anchors, prototypes)


def test_msn_of_two_ranks_is_that_of_the_joined_batch_where_lightlys_is_not():
    """Mean-entropy maximisation is about all anchors; lightly takes each rank's, whose mean is another loss.

    That ours equals the joined batch on two ranks is tests/test_distributed.py (`msn`).
    """
    anchors, targets, prototypes = randn(8, 6), randn(8, 6, seed=1).detach(), randn(5, 6, seed=2)
    loss = oracle.MSNLoss(0.1, 0, 1.0)  # no Sinkhorn, so that only this term can differ
    ranks = [loss(anchors[half], targets[half], prototypes) for half in (slice(0, 4), slice(4, 8))]
    joined = loss(anchors, targets, prototypes)
    assert abs((sum(ranks) / 2 - joined).item()) > 0.01
    torch.testing.assert_close(MSNLoss(0.1, 0.25, 1.0, 0)(anchors, targets, prototypes), joined)


def test_a_small_temperature_overflows_lightlys_msn_and_not_ours():
    anchors, targets, prototypes = (randn(4, 6, seed=s, dtype=torch.float32).detach() for s in range(3))
    assert not oracle.MSNLoss(0.005)(anchors, targets, prototypes).isfinite()
    assert MSNLoss(0.005)(anchors, targets, prototypes).isfinite()


def test_under_bf16_autocast_ours_keeps_float32s_value():
    z1, z2 = (randn(16, 8, seed=s, dtype=torch.float32).detach() for s in range(2))
    exact = NTXentLoss(0.1)(z1.double(), z2.double())
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = NTXentLoss(0.1)(z1, z2), oracle.NTXentLoss(0.1)(z1, z2)
    assert abs(ours - exact) < 1e-5 < abs(theirs - exact)
