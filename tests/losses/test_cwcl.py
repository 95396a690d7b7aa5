"""CWCL against its closed form and the formula written out."""

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import CWCLLoss, LossContext

SCALE = 4.0


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def logits(image, other):
    return SCALE * F.normalize(image, dim=1) @ F.normalize(other, dim=1).T


def test_with_the_identity_as_weights_it_is_two_cross_entropies_summed():
    image, other = rows(6, 4), rows(6, 4, seed=1)
    z, labels = logits(image, other), torch.arange(6)
    loss = CWCLLoss(top_k=1)(image, other, SCALE, context=LossContext(image_profile=rows(6, 5, 3)))
    torch.testing.assert_close(loss, F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_an_image_keeps_its_own_weight_among_equals(chunk_size):
    image = rows(5, 5)
    loss = CWCLLoss(top_k=1, chunk_size=chunk_size)
    alike = loss(image, image, 30.0, context=LossContext(image_profile=torch.ones(5, 5, 3, dtype=torch.float64)))
    apart = loss(image, image, 30.0, context=LossContext(image_profile=rows(5, 5, 3)))
    torch.testing.assert_close(alike, apart)


def weights(profile):
    pairs = F.cosine_similarity(profile[:, None], profile[None], dim=3)  # (N, N, C)
    return 0.5 + pairs.sum(2) / (2 * profile.shape[1])


def expected(image, other, w):
    z = logits(image, other)
    soft = -((w / w.sum(1, keepdim=True)) * z.log_softmax(1)).sum() / len(z)
    return soft + F.cross_entropy(z.T, torch.arange(len(z)))


def test_equals_the_published_formula():
    image, other, profile = rows(6, 4), rows(6, 4, seed=1), rows(6, 5, 3, seed=2)
    loss = CWCLLoss()(image, other, SCALE, context=LossContext(image_profile=profile))
    torch.testing.assert_close(loss, expected(image, other, weights(profile)))


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"power": 3.0}, lambda w: w**3),
        ({"temperature": 0.2}, lambda w: (w / 0.2).softmax(1)),
        ({"top_k": 3}, lambda w: w * (w >= w.sort(1, descending=True).values[:, 2:3])),
    ],
)
def test_options_sharpen_the_weights(options, change):
    image, other, profile = rows(6, 4), rows(6, 4, seed=1), rows(6, 5, 3, seed=2)
    loss = CWCLLoss(**options)(image, other, SCALE, context=LossContext(image_profile=profile))
    torch.testing.assert_close(loss, expected(image, other, change(weights(profile))))


def test_centring_takes_out_what_all_images_share():
    image, other, profile = rows(6, 4), rows(6, 4, seed=1), rows(6, 5, 3, seed=2)
    centred = weights(profile - profile.mean(0))
    loss = CWCLLoss(center=True)(image, other, SCALE, context=LossContext(image_profile=profile + 100.0))
    torch.testing.assert_close(loss, expected(image, other, centred))


def test_a_shared_prompt_collects_the_weights_of_its_images():
    image, other, profile = rows(4, 4), rows(2, 4, seed=1), rows(4, 5, 3, seed=2)
    image_id = torch.tensor([0, 1, 0, 0])
    context = LossContext(image_id=image_id, other_id=torch.arange(2), image_profile=profile)
    z, w = logits(image, other), weights(profile)
    w = torch.stack([w[:, [0, 2, 3]].sum(1), w[:, 1]], dim=1)
    soft = -((w / w.sum(1, keepdim=True)) * z.log_softmax(1)).sum() / 4
    back = z.T.log_softmax(1)
    hard = -(back[0, [0, 2, 3]].mean() + back[1, 1]) / 2
    torch.testing.assert_close(CWCLLoss()(image, other, SCALE, context=context), soft + hard)


def test_weights_carry_no_gradient():
    profile = rows(6, 5, 3, seed=2).requires_grad_()
    image = rows(6, 4).requires_grad_()
    loss = CWCLLoss()(image, rows(6, 4, seed=1), SCALE, context=LossContext(image_profile=profile))
    loss.backward()
    assert profile.grad is None
    assert image.grad.any()
