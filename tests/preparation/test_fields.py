from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.filters import threshold_otsu

from morphoclip.data.shards import intensities
from morphoclip.data.shards.remote import Store, StoreError
from morphoclip.preparation import fields
from morphoclip.schema import CHANNELS
from tests.data.shards.test_remote import Server, quick


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint16, st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 900)))
def test_percentiles_and_otsu_equal_numpy_and_skimage(field):
    described = intensities.describe_field(field, ("DNA",))
    expected = np.percentile(field, intensities.PERCENTILES)
    actual = [described[intensities.percentile_column(p, "DNA")] for p in intensities.PERCENTILES]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    assert described["otsu_DNA"] == threshold_otsu(field[0])


def test_binning_is_the_rounded_mean_and_cuts_the_remainder():
    field = np.random.default_rng(0).integers(0, 65536, (2, 7, 9), np.uint16)
    binned = fields.bin_field(field, 3)
    assert binned.shape == (2, 2, 3)
    assert binned[1, 1, 2] == np.floor(field[1, 3:6, 6:9].mean() + 0.5)
    assert fields.bin_field(np.full((1, 4, 4), 65535, np.uint16), 2).max() == 65535


@pytest.mark.parametrize("seed", range(5))
def test_nuclei_are_found_where_they_were_drawn(draw_field, seed):
    field, centres = draw_field(seed)
    found = fields.find_nuclei(field[0], pixel_size_um=1.1)
    assert len(found) == len(centres)
    distances = np.linalg.norm(found[:, None] - centres[None], axis=-1)
    assert distances.min(0).max() < 3  # those cut by the border have their centre shifted inwards


def test_touching_nuclei_are_split():
    y, x = np.mgrid[:96, :96]
    dna = 300.0 + 4000 * (np.hypot(y - 48, x - 40) < 8) + 4000 * (np.hypot(y - 48, x - 54) < 8)
    dna = np.random.default_rng(0).poisson(dna).astype(np.uint16)
    found = fields.find_nuclei(dna, pixel_size_um=1.1)
    np.testing.assert_allclose(found[np.argsort(found[:, 1])], [[48, 40], [48, 54]], atol=1.5)


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_noise_and_uneven_background_hold_no_nuclei(slope):
    background = 300 + slope * np.arange(256)[:, None] * np.ones((1, 256))
    dna = np.random.default_rng(0).poisson(background).astype(np.uint16)
    assert len(fields.find_nuclei(dna, pixel_size_um=1.2)) == 0
    assert len(fields.find_nuclei(np.full((64, 64), 7, np.uint16), pixel_size_um=1.2)) == 0


@given(st.integers(8, 40), st.integers(40, 70), st.integers(40, 70), st.floats(0, 39), st.floats(0, 39))
def test_nucleus_crops_stay_inside_and_are_centred_away_from_borders(size, height, width, y, x):
    corner = fields.nucleus_crops(np.array([[y, x]]), (height, width), size)[0]
    assert (corner >= 0).all()
    assert corner[0] + size <= height
    assert corner[1] + size <= width
    for place, start, length in zip((y, x), corner, (height, width), strict=True):
        if size / 2 + 1 <= place <= length - size / 2 - 1:
            assert abs(start + size // 2 - place) <= 0.5


def test_grid_crops_tile_the_field_without_overlap():
    covered = np.zeros((70, 97), int)
    for y, x in fields.grid_crops(covered.shape, 32):
        covered[y : y + 32, x : x + 32] += 1
    assert covered.max() == 1
    assert covered.sum() == 2 * 3 * 32 * 32


def test_random_crops_obey_the_foreground_rule_or_keep_the_best():
    dna = np.zeros((200, 200), np.uint16)
    dna[150:180, 20:50] = 1000
    corners = fields.random_crops(dna, 500, 40, 10, np.random.default_rng(0), tries=400)
    assert min(fields.foreground(dna, corner, 40, 500) for corner in corners) >= fields.MIN_FOREGROUND
    lone = np.zeros((200, 200), np.uint16)
    lone[100, 100] = 1000  # one pixel of 1600 never makes 1 %
    [corner] = fields.random_crops(lone, 500, 40, 1, np.random.default_rng(0), tries=400)
    assert fields.foreground(lone, corner, 40, 500) == 1 / 1600
    full = fields.random_crops(dna, 500, 40, 5, np.random.default_rng(0), tries=400, min_foreground=0.4)
    assert min(fields.foreground(dna, corner, 40, 500) for corner in full) >= 0.4


@pytest.fixture
def tiffs(tmp_path, draw_field):
    paths = {}
    for channel, plane in zip(CHANNELS, draw_field(0)[0], strict=True):
        paths[channel] = str(tmp_path / f"{channel}.tiff")
        tifffile.imwrite(paths[channel], plane, compression="lzw")
    return paths


def test_a_field_is_read_in_the_order_asked(tiffs, draw_field):
    reverse = dict(reversed(tiffs.items()))
    np.testing.assert_array_equal(fields.read_field(reverse), draw_field(0)[0][::-1])


def damage(tiffs, kind, channel):
    path = tiffs[channel]
    if kind == "no such file":
        os.remove(path)
    elif kind == "has no file":
        tiffs[channel] = ""
    elif kind == "truncated":
        with open(path, "r+b") as file:
            file.truncate(3000)
    elif kind == "the other channels are":
        tifffile.imwrite(path, np.ones((64, 128), np.uint16))
    elif kind == "expected uint16":
        tifffile.imwrite(path, np.ones((128, 128), np.uint8))
    elif kind == "all zero":
        tifffile.imwrite(path, np.zeros((128, 128), np.uint16))
    elif kind == "is constant, 7 in every pixel":
        tifffile.imwrite(path, np.full((128, 128), 7, np.uint16))
    elif kind == "expected one":
        tifffile.imwrite(path, np.ones((2, 128, 128), np.uint16))


@pytest.mark.parametrize(
    "kind",
    [
        "no such file",
        "has no file",
        "truncated",
        "the other channels are",
        "expected uint16",
        "all zero",
        "expected one",
        "is constant, 7 in every pixel",
    ],
)
@pytest.mark.parametrize("channel", ["DNA", "ER"])
def test_a_bad_channel_is_named_with_its_reason(tiffs, kind, channel):
    damage(tiffs, kind, channel)
    with pytest.raises(fields.FieldError, match=kind) as error:
        fields.read_field(tiffs)
    assert channel in str(error.value)


@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_tiff_is_never_read_as_an_image(tmp_path, compression, share):
    path = tmp_path / "cut.tiff"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 5000, (200, 200), np.uint16), compression=compression)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(fields.FieldError, match="truncated or damaged"):
        fields.read_tiff(str(path))


def test_a_truncated_real_field_is_never_read_as_an_image(real_data, tmp_path):
    """Opera Phenix files hold their directory at the end: tifffile then only logs and returns an empty array."""
    whole = next((real_data / "images/DMSO").glob("*-ch5*.tiff")).read_bytes()
    (tmp_path / "cut.tiff").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(fields.FieldError, match="truncated or damaged"):
        fields.read_tiff(str(tmp_path / "cut.tiff"))


def test_nuclei_of_real_fields_are_about_as_many_as_the_eye_counts(real_data):
    counted = {"DMSO": 103, "AMG900": 39, "FK-866": 45}
    for name, expected in counted.items():
        [path] = (real_data / "images" / name).glob("*-ch5*.tiff")
        dna = fields.bin_field(fields.read_tiff(str(path))[None], 2)[0]
        found = len(fields.find_nuclei(dna, pixel_size_um=1.196))
        assert abs(found - expected) <= 0.1 * expected


def test_a_store_that_fails_is_asked_again_and_never_blamed_on_the_field(tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "pause", quick(Store.pause))
    (tmp_path / "shards").mkdir()  # the server's troubles are for such a folder
    plane = np.arange(600, dtype=np.uint16).reshape(20, 30)
    tifffile.imwrite(tmp_path / "shards" / "a.tiff", plane)
    server = Server(tmp_path)
    server.troubles = ["503", "503", "cut"]
    np.testing.assert_array_equal(fields.read_tiff(f"{server.url}/shards/a.tiff"), plane)
    assert server.troubles == []
    with pytest.raises(fields.FieldError, match=r"b.tiff: no such file"):
        fields.read_tiff(f"{server.url}/shards/b.tiff")
    server.troubles = ["503"] * 50
    with pytest.raises(StoreError, match=r"shards/a.tiff failed 8 times.*503"):
        fields.read_field({"DNA": f"{server.url}/shards/a.tiff"})
    server.http.shutdown()
