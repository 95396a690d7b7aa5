from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from morphoclip.data import companding
from morphoclip.data.codecs import CODECS, crc32, get_codec

CROPS = arrays(np.uint16, st.tuples(st.integers(1, 6), st.integers(1, 20), st.integers(1, 20)))


@pytest.mark.parametrize("name", sorted(set(CODECS) - {"sqrt"}))
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


def through(name: str, image: np.ndarray) -> np.ndarray:
    out = np.zeros_like(image)
    get_codec(name).decode(get_codec(name).encode(image), out)
    return out


def test_companding_moves_no_intensity_by_more_than_a_fifth_of_its_noise():
    every = np.arange(2**16, dtype=np.uint16).reshape(1, 256, 256)
    error = np.abs(through("sqrt", every).astype(float) - every)
    assert (error <= 0.2 * companding.noise(every)).all()
    assert error.max() > 10  # it does round where there is light
    assert (error[companding.noise(every) < 5] == 0).all()  # and nowhere else


@settings(max_examples=30, deadline=None)
@given(CROPS)
def test_companding_twice_changes_nothing_more(image):
    once = through("sqrt", image)
    assert (np.abs(once.astype(float) - image) <= 0.2 * companding.noise(image)).all()
    np.testing.assert_array_equal(through("sqrt", once), once)


def test_dim_crops_take_a_byte_a_pixel_and_fewer_bytes_than_lossless():
    rng = np.random.default_rng(0)
    dim = rng.poisson(np.full((5, 64, 64), 400) / 0.09) * 0.09
    data = get_codec("sqrt").encode(dim.astype(np.uint16))
    assert int.from_bytes(data[6:10], "little") == dim.size
    assert len(data) < 0.8 * len(get_codec("blosc").encode(dim.astype(np.uint16)))


def test_the_noise_model_is_not_above_the_noise_of_real_images(real_data):
    """The second difference over 3 x 3 pixels leaves noise where the image is smooth (Immerkaer 1996)."""
    import tifffile

    for channel in range(1, 6):
        x = tifffile.imread(real_data / f"images/DMSO/r04c14f05p01-ch{channel}sk1fk1fl1.tiff").astype(float)
        d = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
        d = (d[:-2] - 2 * d[1:-1] + d[2:]) / 6
        variance = (d**2)[:1072, :1072].reshape(134, 8, 134, 8).mean((1, 3))
        level = x[1:1073, 1:1073].reshape(134, 8, 134, 8).mean((1, 3))
        smooth = level < np.median(level)
        ratio = np.median(variance[smooth]) / np.median(companding.noise(level[smooth]) ** 2)
        assert 0.85 < ratio < 1.3


def test_damaged_codes_are_refused():
    image = np.full((5, 8, 8), 65535, np.uint16)
    data = bytearray(get_codec("sqrt").encode(image))
    data[:2] = (60000).to_bytes(2, "little")
    with pytest.raises(ValueError, match="is damaged"):
        get_codec("sqrt").decode(bytes(data), np.empty_like(image))


def test_the_checksum_is_zlibs():
    data = np.random.default_rng(0).bytes(5000)
    assert crc32(data) == zlib.crc32(data)
    assert crc32(data[700:], crc32(data[:700])) == zlib.crc32(data)


def test_an_unknown_codec_is_named():
    with pytest.raises(ValueError, match=r"unknown codec 'jpeg'.*blosc.*raw"):
        get_codec("jpeg")
