"""S2L: weights near and far, the formula written out, and where its optimum lies."""

import math

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import LossContext, S2LLoss


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_weights_are_one_at_no_distance_and_nothing_far_away():
    points = torch.tensor([[0.0], [0.1], [0.3], [50.0]], dtype=torch.float64)
    w = S2LLoss().weights(points, points)[0]
    near = 1 - 4 / math.pi * math.atan(0.01 / 0.3)
    torch.testing.assert_close(w, torch.tensor([1.0, near, 0.0, 0.0], dtype=torch.float64))
    # Without a threshold the weight falls to −1 at infinity, as the formula has it.
    far = S2LLoss(threshold=-1.0).weights(points, points)[0, 3].item()
    assert far == pytest.approx(1 - 4 / math.pi * math.atan(2500 / 0.3))


def test_equals_the_formula_written_out():
    image, other, frozen = rows(4, 3), rows(4, 3, seed=1), rows(4, 2, seed=2)
    total = 0.0
    for i in range(4):
        for j in range(4):
            z = 3.0 * F.cosine_similarity(image[i], other[j], dim=0).item() - 1.0
            w = 1 - 4 / math.pi * math.atan((frozen[i] - frozen[j]).square().sum().item() / 5.0)
            w = w if w >= 0.4 else 0.0
            total -= w * math.log(1 / (1 + math.exp(-z))) + (1.75 - 0.75 * w) * math.log(1 / (1 + math.exp(z)))
    loss = S2LLoss(c=5.0, threshold=0.4)(image, other, 3.0, -1.0, context=LossContext(image_frozen=frozen))
    assert loss.item() == pytest.approx(total / 4, abs=1e-12)


@pytest.mark.parametrize(("gamma", "delta", "optimum"), [(1.75, 0.75, 0.0), (1.0, 1.0, 2.0)])
def test_the_optimum_of_a_true_pair(gamma, delta, optimum):
    """σ(z) = .5 with the published constants; without a limit (here the largest z tried) with γ = δ = 1."""
    image = torch.ones(1, 1, dtype=torch.float64)
    context = LossContext(image_frozen=image)
    loss = S2LLoss(gamma=gamma, delta=delta)
    tried = torch.linspace(-2, 2, 81, dtype=torch.float64)
    values = torch.stack([loss(image, image, 1.0, z - 1.0, context=context) for z in tried])
    assert tried[values.argmin()].item() == pytest.approx(optimum)


def test_many_images_of_a_prompt_do_not_turn_its_repulsion_round():
    """Four equal images of one prompt: a sum of weights of 4 would make γ − δ·4 negative, and the loss bottomless."""
    image = torch.ones(4, 1, dtype=torch.float64)
    context = LossContext(image_id=torch.zeros(4, dtype=torch.int64), other_id=torch.tensor([0]), image_frozen=image)
    values = [S2LLoss()(image, image[:1], 1.0, bias, context=context) for bias in (-1.0, 50.0)]
    assert values[0] < values[1]


def test_images_of_a_prompt_give_it_the_sum_of_their_weights_at_most_one_and_are_all_its_own():
    image, other, frozen = rows(5, 3), rows(3, 3, seed=1), rows(5, 2, seed=2)
    image_id, other_id = torch.tensor([7, 8, 7, 9, 8]), torch.tensor([8, 9, 7])
    total = 0.0
    for i in range(5):
        for m in range(3):
            z = 3.0 * F.cosine_similarity(image[i], other[m], dim=0).item() - 1.0
            near = [max(1 - 4 / math.pi * math.atan((frozen[i] - f).square().sum().item() / 5.0), 0.0) for f in frozen]
            of_prompt = sum(w for w, one in zip(near, image_id, strict=True) if one == other_id[m])
            w = 1.0 if image_id[i] == other_id[m] else min(of_prompt, 1.0)
            total -= w * math.log(1 / (1 + math.exp(-z))) + (1.75 - 0.75 * w) * math.log(1 / (1 + math.exp(z)))
    context = LossContext(image_id, other_id, image_frozen=frozen)
    loss = S2LLoss(c=5.0, threshold=0.0)(image, other, 3.0, -1.0, context=context)
    assert loss.item() == pytest.approx(total / 5, abs=1e-12)


def test_distances_are_of_the_frozen_space_and_carry_no_gradient():
    frozen = rows(4, 2, seed=2).requires_grad_()
    image = rows(4, 3).requires_grad_()
    S2LLoss()(image, rows(4, 3, seed=1), 3.0, context=LossContext(image_frozen=frozen)).backward()
    assert frozen.grad is None
