"""MSN's loss against the formula written out, and against collapse."""

import math

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import MSNLoss
from morphoclip.losses.sinkhorn import sinkhorn


def case(views=3, batch=4, k=5, dim=6):
    draws = torch.Generator().manual_seed(0)
    shapes = ((views * batch, dim), (batch, dim), (k, dim))
    return [torch.randn(*shape, dtype=torch.float64, generator=draws) for shape in shapes]


@pytest.mark.parametrize("iterations", [0, 3])
def test_equals_the_formula_written_out(iterations):
    anchors, targets, prototypes = case()

    def cosines(x):
        return F.normalize(x, dim=1) @ F.normalize(prototypes, dim=1).T

    p = (cosines(anchors) / 0.1).softmax(1)
    balanced = sinkhorn((cosines(targets) / (0.1 * 0.25)).softmax(1).log(), iterations)
    # View-major: anchor v·B + b belongs to target b.
    cross = torch.stack([-(balanced[i % 4] * p[i].log()).sum() for i in range(12)]).mean()
    mean = p.mean(0)
    expected = cross + 0.7 * (math.log(5) + (mean * mean.log()).sum())
    loss = MSNLoss(me_max_weight=0.7, sinkhorn_iters=iterations)(anchors, targets, prototypes)
    torch.testing.assert_close(loss, expected)


def test_agreeing_and_evenly_used_prototypes_cost_nothing():
    prototypes = torch.eye(4, dtype=torch.float64)
    loss = MSNLoss(temperature=0.01)(prototypes.repeat(2, 1), prototypes, prototypes)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_collapse_onto_one_prototype_costs_log_k():
    prototypes = torch.eye(4, dtype=torch.float64)
    one = prototypes[:1].expand(4, -1)
    loss = MSNLoss(temperature=0.01, sinkhorn_iters=0)(one.repeat(2, 1), one, prototypes)
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


def test_targets_give_no_gradient_and_prototypes_learn_from_anchors():
    anchors, targets, prototypes = (x.requires_grad_() for x in case())
    MSNLoss()(anchors, targets, prototypes).backward()
    assert targets.grad is None
    assert anchors.grad.any()
    assert prototypes.grad.any()


def test_anchors_must_be_whole_views():
    anchors, targets, prototypes = case()
    with pytest.raises(ValueError, match="anchors \\(11\\)"):
        MSNLoss()(anchors[:11], targets, prototypes)
