from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from morphoclip.data.shards import companding
from morphoclip.data.shards.codecs import CODECS, crc32, get_codec
from morphoclip.data.shards.prediction import distances, restore

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


def test_noise_is_stored_at_little_more_than_its_entropy():
    """Codes are .4 σ wide, and a prediction from three noisy neighbours doubles σ: about log2(4.13 · 2 / .4) = 4.4 bits."""
    light = np.linspace(400, 4000, 128) + np.linspace(0, 2000, 128)[:, None]
    image = np.random.default_rng(0).poisson(np.broadcast_to(light, (5, 128, 128)) / companding.SHOT) * companding.SHOT
    image = image.astype(np.uint16)
    assert 8 * len(get_codec("sqrt").encode(image)) / image.size < 5
    assert len(get_codec("sqrt").encode(image)) < 0.6 * len(get_codec("blosc").encode(image))


@settings(max_examples=30, deadline=None)
@given(CROPS)
def test_what_prediction_takes_away_it_gives_back(image):
    folded = distances(image)
    assert folded[:, 0, 0].tolist() == [2 * x if x < 2**15 else 2 * (2**16 - x) - 1 for x in image[:, 0, 0].tolist()]
    np.testing.assert_array_equal(restore(folded), image)


def test_a_plane_leaves_nothing_but_its_edges():
    y, x = np.mgrid[:9, :7]
    assert not distances((50 + 3 * x + 1000 * y)[None].astype(np.uint16))[:, 1:, 1:].any()


def test_sqrt_is_less_than_two_thirds_of_lossless_on_real_images(real_data):
    import tifffile

    paths = [real_data / f"images/DMSO/r04c14f05p01-ch{channel}sk1fk1fl1.tiff" for channel in range(1, 6)]
    crop = np.stack([tifffile.imread(path)[400:624, 400:624] for path in paths])
    assert len(get_codec("sqrt").encode(crop)) < 2 / 3 * len(get_codec("blosc").encode(crop))


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


def test_codes_that_stand_for_nothing_are_refused():
    data = CODECS["blosc"].encode(distances(np.full((5, 8, 8), 60000, np.uint16)))
    with pytest.raises(ValueError, match=r"code 60000 .* is damaged"):
        get_codec("sqrt").decode(data, np.empty((5, 8, 8), np.uint16))


def test_the_checksum_is_zlibs():
    data = np.random.default_rng(0).bytes(5000)
    assert crc32(data) == zlib.crc32(data)
    assert crc32(data[700:], crc32(data[:700])) == zlib.crc32(data)


def test_an_unknown_codec_is_named():
    with pytest.raises(ValueError, match=r"unknown codec 'jpeg'.*blosc.*raw"):
        get_codec("jpeg")
