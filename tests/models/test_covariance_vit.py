"""Second moments of filter responses, against numpy and by what must not change them."""

import numpy as np
import pytest
import torch

from morphoclip.models import create_encoder
from morphoclip.models.covariance_vit import FLAT, CovariancePool

SMALL = {"image_size": 32, "embed_dim": 32, "depth": 1, "heads": 2, "covariance_dim": 4}


def pool_and_responses(features=6, dim=3, dtype=torch.float64):
    torch.manual_seed(0)
    pool = CovariancePool(features, dim).to(dtype)
    return pool, torch.randn(5, features, 4, 7, dtype=dtype)


def test_equals_numpys_covariance():
    pool, responses = pool_and_responses()
    pool.norm = torch.nn.Identity()
    weights = pool.combine.weight[:, :, 0, 0].detach().numpy()
    for found, response in zip(pool(responses).detach().numpy(), responses.numpy(), strict=True):
        covariance = np.cov(weights @ response.reshape(6, -1), bias=True) + FLAT * np.eye(3)
        deviation = np.sqrt(np.diag(covariance))
        correlation = (covariance / np.outer(deviation, deviation))[np.triu_indices(3, 1)]
        np.testing.assert_allclose(found, np.concatenate([np.log(deviation), correlation]), atol=1e-12)


def test_neither_place_nor_level_matters():
    pool, responses = pool_and_responses()
    pool.eval()
    places = torch.randperm(28, generator=torch.Generator().manual_seed(1))
    moved = responses.flatten(2)[:, :, places].view_as(responses) + torch.arange(6.0).view(6, 1, 1)
    torch.testing.assert_close(pool(moved), pool(responses))


def test_a_flat_map_is_finite_and_has_finite_gradients():
    pool, responses = pool_and_responses(dtype=torch.float32)
    responses = torch.zeros_like(responses).requires_grad_()
    out = pool(responses)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert responses.grad.isfinite().all()


def test_autocast_leaves_the_moments_in_float32():
    pool, responses = pool_and_responses(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pool(responses).dtype == torch.float32


def test_crops_of_another_size_give_as_many_features():
    encoder = create_encoder("covariance_vit", dynamic_img_size=True, **SMALL).eval()
    assert encoder(torch.rand(2, 5, 48, 48)).shape == encoder(torch.rand(2, 5, 32, 32)).shape == (2, 32 + 4 * 10)


def test_its_patches_cannot_be_masked():
    encoder = create_encoder("covariance_vit", **SMALL)
    with pytest.raises(TypeError, match="no patch tokens to mask"):
        encoder.forward_tokens(torch.rand(2, 5, 32, 32), torch.zeros(2, 1, dtype=torch.int64))
