"""Faster ways to the same numbers: ranks by sorting, quantiles from sorted values, the first principal axes alone."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from pycytominer.operations.transform import InverseNormalTransform  # sklearn's QuantileTransformer

from morphoclip.profiling.principal import principal_axes
from morphoclip.profiling.steps import inverse_normal, pca


@pytest.fixture(params=["distinct", "rounded", "few values", "constant", "near ties"])
def x(request) -> np.ndarray:
    """(60, 12): features without ties, with some, with many, that are constant, and that differ by rounding."""
    values = np.random.default_rng(0).standard_normal((60, 12))
    change = {
        "distinct": lambda v: v,
        "rounded": lambda v: v.round(1),
        "few values": lambda v: v.round(0),
        "constant": lambda v: 0 * v + 3,
        "near ties": lambda v: v.round(1) * (1 + 1e-15 * np.arange(60)[:, None]),
    }
    return change[request.param](values)


@pytest.mark.parametrize("n_quantiles", [1000, 25])
def test_quantiles_are_numpys_bit_for_bit(x, n_quantiles):
    want = np.quantile(x, np.linspace(0, 1, min(n_quantiles, len(x))), axis=0)
    np.testing.assert_array_equal(inverse_normal.fit(x, n_quantiles)["quantiles"], np.maximum.accumulate(want, axis=0))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_of_the_reference_wells_are_those_of_interpolation_and_of_sklearn(x, dtype):
    x = x.astype(dtype)
    state = inverse_normal.fit(x.astype(np.float64))
    got = inverse_normal.apply(x, state)
    twice = inverse_normal.apply(np.concatenate([x, x]), state)  # more wells than quantiles: by interpolation
    assert got.dtype == dtype
    np.testing.assert_allclose(got, twice[: len(x)], atol=1e-9 if dtype == np.float64 else 1e-6)
    if len(np.unique(x)) == x.size:  # of tied values, rounding decides which rank sklearn gives
        table = pd.DataFrame(x.astype(np.float64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer wells than sklearn's quantiles
            want = InverseNormalTransform().fit(table).transform(table)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_distinct_wells_are_ranked_by_sorting():
    x = np.random.default_rng(1).standard_normal((384, 20))
    quantiles = inverse_normal.fit(x)["quantiles"].T
    scores = np.empty(quantiles.shape)
    assert inverse_normal._put_own_scores(np.ascontiguousarray(x.T), quantiles, scores).all()
    ranks = x.argsort(0).argsort(0) / 383
    np.testing.assert_allclose(scores.T, inverse_normal._normal(ranks), atol=1e-12)


@pytest.mark.parametrize("shape", [(50, 30), (30, 50)])
def test_the_first_axes_alone_equal_those_of_all(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    x -= x.mean(0)
    singular, axes = principal_axes(x)
    for k in (1, 7, 29, 30, 60):
        first, some = principal_axes(x, at_most=k)
        k = min(k, len(singular))
        np.testing.assert_allclose(first, singular[:k], rtol=1e-9)
        np.testing.assert_allclose(some, axes[:, :k], atol=1e-8)


def test_fewer_components_than_asked_for_are_refused_or_kept_with_a_warning():
    x = np.random.default_rng(0).standard_normal((40, 9)) @ np.diag([1, 1, 1, 1, 1, 1, 0, 0, 0])
    with pytest.raises(
        ValueError, match=r"n_components=8, but 40 reference wells span 6 components.*when_fewer: keep_all"
    ):
        pca.fit(x, 8)
    with pytest.warns(UserWarning, match="pca keeps 6 components instead of 8: the wells span no more"):
        assert pca.fit(x, 8, when_fewer="keep_all")["axes"].shape == (9, 6)
    assert pca.fit(x, 4, when_fewer="keep_all")["axes"].shape == (9, 4)
    with pytest.raises(ValueError, match="pca when_fewer='all': use one of"):
        pca.fit(x, 8, when_fewer="all")
