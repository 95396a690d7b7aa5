"""SigLIP: the sum over pairs, divided by the images."""

import math

import pytest
import torch
import torch.nn.functional as F

from morphoclip.losses import LossContext, SigLIPLoss


def rows(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_orthogonal_pairs_have_a_closed_form():
    """B positives at z = t + b and B(B − 1) negatives at z = b, over B: a mean over pairs would be B times less."""
    count, t, b = 6, 10.0, -10.0
    z = torch.eye(count, dtype=torch.float64)
    expected = math.log1p(math.exp(-(t + b))) + (count - 1) * math.log1p(math.exp(b))
    assert SigLIPLoss()(z, z, t, torch.tensor(b)).item() == pytest.approx(expected, abs=1e-12)


def test_equals_the_sum_over_pairs_where_images_share_prompts():
    image, other = rows(5, 4), rows(3, 4, seed=1)
    image_id, other_id = torch.tensor([7, 2, 7, 7, 2]), torch.tensor([2, 9, 7])
    context = LossContext(image_id=image_id, other_id=other_id)
    total = 0.0
    for i in range(5):
        for j in range(3):
            z = 3.0 * F.cosine_similarity(image[i], other[j], dim=0) - 1.0
            y = 1.0 if image_id[i] == other_id[j] else -1.0
            total -= math.log(1 / (1 + math.exp(-y * z)))
    assert SigLIPLoss()(image, other, 3.0, -1.0, context=context).item() == pytest.approx(total / 5, abs=1e-12)


def test_without_a_bias_it_is_the_bias_zero():
    image, other = rows(4, 3), rows(4, 3, seed=1)
    torch.testing.assert_close(SigLIPLoss()(image, other, 2.0), SigLIPLoss()(image, other, 2.0, 0.0))
