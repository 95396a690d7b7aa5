"""CLOOB: retrieval and InfoLOOB written out, and a positive that is no part of the denominator."""

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import CLOOBLoss, LossContext


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def retrieve(stored, state, beta):
    return F.normalize(stored.T @ torch.softmax(beta * stored @ state, dim=0), dim=0)


def info_loob(a, b, tau):
    k = a @ b.T / tau
    negatives = [torch.cat([k[i, :i], k[i, i + 1 :]]).logsumexp(0) for i in range(len(k))]
    return tau * (-k.diagonal().mean() + torch.stack(negatives).mean())


def test_equals_the_formula_written_out():
    x, y = F.normalize(rows(5, 4), dim=1), F.normalize(rows(5, 4, seed=1), dim=1)
    p_xx, p_yx = (torch.stack([retrieve(stored, state, 8.0) for state in x]) for stored in (x, y))
    p_xy, p_yy = (torch.stack([retrieve(stored, state, 8.0) for state in y]) for stored in (x, y))
    expected = info_loob(p_xx, p_xy, 1 / 30) + info_loob(p_yy, p_yx, 1 / 30)
    torch.testing.assert_close(CLOOBLoss(inv_tau=30, beta=8)(rows(5, 4), rows(5, 4, seed=1)), expected)


def test_images_of_one_prompt_are_positives_and_never_negatives():
    """Three images of two prompts written out: the candidate's positive is the mean over its images."""
    x, y = F.normalize(rows(3, 4), dim=1), F.normalize(rows(2, 4, seed=1), dim=1)
    context = LossContext(image_id=torch.tensor([5, 6, 5]), other_id=torch.tensor([5, 6]))
    p_xx, p_yx = (torch.stack([retrieve(stored, state, 8.0) for state in x]) for stored in (x, y))
    p_xy, p_yy = (torch.stack([retrieve(stored, state, 8.0) for state in y]) for stored in (x, y))
    k, back = 30 * p_xx @ p_xy.T, 30 * p_yy @ p_yx.T
    to_other = [k[0, 1] - k[0, 0], k[1, 0] - k[1, 1], k[2, 1] - k[2, 0]]  # one negative: its logsumexp is itself
    to_image = [back[0, 1] - back[0, [0, 2]].mean(), back[1, [0, 2]].logsumexp(0) - back[1, 1]]
    expected = (torch.stack(to_other).mean() + torch.stack(to_image).mean()) / 30
    torch.testing.assert_close(CLOOBLoss()(x, y, context=context), expected)


def test_the_logit_scale_plays_no_part():
    x, y = rows(5, 4), rows(5, 4, seed=1)
    assert torch.equal(CLOOBLoss()(x, y, 1.0), CLOOBLoss()(x, y, 99.0))
    assert not list(CLOOBLoss().parameters())


def test_a_step_without_negatives_is_an_error():
    context = LossContext(image_id=torch.tensor([5, 5]), other_id=torch.tensor([5]))
    with pytest.raises(ValueError, match="two ids"):
        CLOOBLoss()(rows(2, 3), rows(1, 3), context=context)
