from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from morphoclip.data.codecs import CODECS, get_codec

CROPS = arrays(np.uint16, st.tuples(st.integers(1, 6), st.integers(1, 20), st.integers(1, 20)))


@pytest.mark.parametrize("name", sorted(CODECS))
@settings(max_examples=30, deadline=None)
@given(CROPS)
def test_what_goes_in_comes_out(name, image):
    codec = get_codec(name)
    data = codec.encode(image)
    out = np.zeros_like(image)
    codec.decode(data, out)
    np.testing.assert_array_equal(out, image)
    assert codec.encode(image) == data


@pytest.mark.parametrize("name", sorted(CODECS))
def test_bytes_of_another_size_are_refused(name):
    codec = get_codec(name)
    data = codec.encode(np.zeros((5, 8, 8), np.uint16))
    with pytest.raises(ValueError, match="needs 1280"):
        codec.decode(data, np.empty((10, 8, 8), np.uint16))


def test_an_unknown_codec_is_named():
    with pytest.raises(ValueError, match=r"unknown codec 'jpeg'.*blosc.*raw"):
        get_codec("jpeg")
