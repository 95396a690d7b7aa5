"""The microscope of the simulation against closed forms, and confounders that are blind to the well's content."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from morphoclip.simulation.confounders import conditions
from morphoclip.simulation.layout import plan
from morphoclip.simulation.optics import (
    BACKGROUND,
    COUNTS_PER_PHOTON,
    OFFSET,
    READ_NOISE,
    Conditions,
    blur,
    photograph,
)
from morphoclip.simulation.phenotype import AXES
from morphoclip.simulation.screen import ScreenConfig
from morphoclip.simulation.streams import stream

CLEAN = Conditions(
    gain=np.ones(5, np.float32),
    background=np.ones(5, np.float32),
    blur=np.ones(5, np.float32),
    halo=0.0,
    shade=np.zeros(5, np.float32),
    light=np.zeros(2),
    dust=np.zeros((0, 4)),
    debris=0.0,
    drift=np.zeros(len(AXES), np.float32),
    density=1.0,
)


def test_blur_is_a_gaussian_that_keeps_the_light():
    point = np.zeros((1, 65, 65), np.float32)
    point[0, 32, 32] = 1000
    seen = blur(point, np.array([1.5], np.float32), halo=0.0)[0]
    d = np.arange(65) - 32
    squared = d[:, None] ** 2 + d[None] ** 2
    np.testing.assert_allclose(seen, 1000 * np.exp(-squared / (2 * 1.5**2)) / (2 * np.pi * 1.5**2), atol=0.02)
    assert blur(point, np.array([1.5], np.float32), halo=0.1).sum() == pytest.approx(1000, rel=1e-4)


def test_noise_has_photon_and_read_variance():
    level = np.array([0, 500, 2000, 8000, 20000], np.float32)
    canvas = np.broadcast_to(level[:, None, None], (5, 320, 320)).copy()
    quiet = photograph(stream("noise"), canvas, 32, CLEAN, dead=0.0).astype(float)
    # The slow haze of the background is a small part of the variance; neighbouring differences do not see it.
    noise = np.var(np.diff(quiet, axis=2), axis=(1, 2)) / 2
    mean = quiet.mean((1, 2)) - OFFSET
    np.testing.assert_allclose(noise, COUNTS_PER_PHOTON * mean + READ_NOISE**2, rtol=0.03)


def test_background_and_gain_act_on_their_own_channel():
    dark = np.zeros((5, 192, 192), np.float32)
    double = replace(CLEAN, background=np.array([1, 1, 2, 1, 1], np.float32))
    seen = photograph(stream("dark"), dark, 32, double, dead=0.0).mean((1, 2)) - OFFSET
    np.testing.assert_allclose(seen, BACKGROUND * double.background, rtol=0.08)


def test_shade_darkens_corners():
    canvas = np.full((5, 320, 320), 5000, np.float32)
    seen = photograph(stream("shade"), canvas, 32, replace(CLEAN, shade=np.full(5, 0.2, np.float32)), dead=0.0)
    corner, centre = seen[:, :20, :20].mean((1, 2)), seen[:, 118:138, 118:138].mean((1, 2))
    np.testing.assert_allclose(corner / centre, (1 - 0.2 * (0.5 * 1.85 - 0.3)) / (1 + 0.2 * 0.3), rtol=0.05)


def test_confounders_depend_on_the_place_and_not_on_the_content():
    plates = plan(ScreenConfig(seed=3))
    plate = plates[0]
    swapped = replace(plate, wells=dict(zip(plate.wells, reversed(list(plate.wells.values())), strict=True)))
    for well in list(plate.wells)[:5]:
        first, second = conditions(3, plate, well), conditions(3, swapped, well)
        np.testing.assert_array_equal(first.gain, second.gain)
        np.testing.assert_array_equal(first.drift, second.drift)


def test_wells_of_a_plate_are_more_alike_than_plates():
    plates = plan(ScreenConfig(seed=3))
    gains = [np.stack([np.log(conditions(3, plate, well).gain) for well in plate.wells]) for plate in plates]
    within = np.mean([g.std(0).mean() for g in gains])
    between = np.stack([g.mean(0) for g in gains]).std(0).mean()
    assert within < between
    drifts = [np.stack([conditions(3, plate, well).drift for well in plate.wells]) for plate in plates]
    assert np.stack([d.mean(0) for d in drifts]).std(0).mean() > 0.1


def test_edge_wells_hold_fewer_cells():
    plate = plan(ScreenConfig())[0]
    density = [[conditions(seed, plate, well).density for well in ("A07", "H12")] for seed in range(60)]
    edge, middle = np.log(density).mean(0)
    assert edge < middle - 0.05
