"""DINO against the double loop over views, its centre and Sinkhorn."""

import pytest
import torch

from morphoclip.losses import DINOLoss
from morphoclip.losses.sinkhorn import sinkhorn


def outputs(views, seed=0, batch=3, k=7):
    draws = torch.Generator().manual_seed(seed)
    return list(torch.randn(views, batch, k, dtype=torch.float64, generator=draws))


@pytest.mark.parametrize("views", [2, 5])
def test_equals_the_mean_over_pairs_of_different_views(views):
    student, teacher = outputs(views), outputs(2, seed=1)
    loss = DINOLoss(7, student_temp=0.2).double()
    loss.center += torch.linspace(-1, 1, 7, dtype=torch.float64)
    terms = [
        -(((t - loss.center) / 0.05).softmax(1) * (s / 0.2).log_softmax(1)).sum(1).mean()
        for g, t in enumerate(teacher)
        for v, s in enumerate(student)
        if v != g
    ]
    assert len(terms) == 2 * views - 2
    torch.testing.assert_close(loss(student, teacher, 0.05), torch.stack(terms).mean())


def test_the_centre_follows_the_teacher_after_its_use_and_in_training_only():
    loss = DINOLoss(7, center_momentum=0.9).double()
    teacher = outputs(2, seed=1)
    before = loss.center.clone()
    loss.eval()(outputs(3), teacher, 0.04)
    assert torch.equal(loss.center, before)
    first = loss.train()(outputs(3), teacher, 0.04)
    torch.testing.assert_close(loss.center, 0.1 * torch.cat(teacher).mean(0, keepdim=True))
    fresh = DINOLoss(7).double().eval()
    torch.testing.assert_close(first, fresh(outputs(3), teacher, 0.04))


def test_the_centre_stays_float32_under_autocast():
    loss = DINOLoss(7)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss([o.bfloat16() for o in outputs(3)], [o.bfloat16() for o in outputs(2)], 0.04)
    assert value.dtype == loss.center.dtype == torch.float32


def test_the_teacher_gets_no_gradient():
    student, teacher = outputs(2), [t.requires_grad_() for t in outputs(2, seed=1)]
    student[0].requires_grad_()
    DINOLoss(7).double()(student, teacher, 0.04).backward()
    assert teacher[0].grad is None
    assert student[0].grad.any()


def test_sinkhorn_equals_alternating_normalisation_and_balances_prototypes():
    scores = outputs(1, batch=6)[0]
    q = scores.exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    torch.testing.assert_close(sinkhorn(scores, 3), q)
    even = sinkhorn(scores, 200).sum(0)
    torch.testing.assert_close(even, torch.full_like(even, 6 / 7))
    torch.testing.assert_close(sinkhorn(scores, 0), scores.softmax(1))


def test_sinkhorn_does_not_overflow_float32_at_small_temperatures():
    scores = outputs(1, batch=6)[0] / 0.005
    assert scores.float().exp().isinf().any()
    torch.testing.assert_close(sinkhorn(scores.float(), 3).double(), sinkhorn(scores, 3), atol=1e-3, rtol=1e-3)


def test_sinkhorn_in_place_of_centring():
    student, teacher = outputs(3), outputs(2, seed=1)
    loss = DINOLoss(7, sinkhorn_iters=3).double()
    targets = [sinkhorn(t / 0.05, 3) for t in teacher]
    pairs = [(0, 1), (0, 2), (1, 0), (1, 2)]
    terms = [-(targets[g] * (student[v] / 0.1).log_softmax(1)).sum(1).mean() for g, v in pairs]
    torch.testing.assert_close(loss(student, teacher, 0.05), torch.stack(terms).mean())
    assert not loss.center.any()
