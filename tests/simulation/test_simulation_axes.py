"""Every axis of the simulated phenotype changes what it names, and no channel's total."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from scipy import ndimage

from morphoclip.simulation.cells import Cells, lay_out, place
from morphoclip.simulation.organelles import paint, stain
from morphoclip.simulation.phenotype import AXES, CELL_SD, NAMES, draw_cells
from morphoclip.simulation.streams import stream

DNA, ER, RNA, AGP, MITO = range(5)


@lru_cache(maxsize=4)
def stained(axis: str, value: float) -> tuple[Cells, list[np.ndarray]]:
    """The same forty places with every cell at `value` on one axis and 0 on the others."""
    y, x = place(stream("places"), 420, 45)
    phenotype = np.zeros((len(y), len(AXES)), np.float32)
    phenotype[:, NAMES.index(axis)] = value
    cells = lay_out(stream("outlines"), 420, y, x, phenotype, np.zeros(len(y), np.float32))
    return cells, stain(stream("stains"), cells)


def per_cell(cells: Cells, values: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values.astype(float), cells.start)


def on_canvas(cells: Cells, values: np.ndarray) -> np.ndarray:
    canvas = np.zeros(cells.side**2)
    canvas[cells.pixel] = values
    return canvas.reshape(cells.side, cells.side)


def aspect(cells: Cells, weight: np.ndarray) -> float:
    """Mean ratio of the principal axes of `weight` in each cell."""
    total = per_cell(cells, weight)
    mx, my = per_cell(cells, weight * cells.dx) / total, per_cell(cells, weight * cells.dy) / total
    dx, dy = cells.dx - mx[cells.cell], cells.dy - my[cells.cell]
    xx, yy, xy = (per_cell(cells, weight * v) / total for v in (dx * dx, dy * dy, dx * dy))
    gap = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
    return float(np.mean(np.sqrt((xx + yy + gap) / np.maximum(xx + yy - gap, 1e-6))))


def direction(cells: Cells, weight: np.ndarray) -> np.ndarray:
    """(K,) complex mean direction of `weight` from the nucleus; its modulus says how one-sided it is."""
    unit = (cells.dx + 1j * cells.dy) / cells.radius
    return np.add.reduceat(weight * unit, cells.start) / per_cell(cells, weight)


def golgi(cells: Cells, stains: list[np.ndarray]) -> np.ndarray:
    """AGP well above its cell's median, near the nucleus: the Golgi."""
    median = np.array([np.median(part) for part in np.split(stains[AGP], cells.start[1:])])
    return (
        np.where((cells.rim > 0) & (cells.edge < 0.75), np.maximum(stains[AGP] - 2.5 * median[cells.cell], 0), 0)
        + 1e-12
    )


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.mean(np.cos(np.angle(first) - np.angle(second))))


def outline_roughness(cells: Cells, stains) -> float:
    label = cells.label
    border = (label != np.roll(label, 1, 0)) | (label != np.roll(label, 1, 1))
    return float(border.sum() / np.sqrt(len(cells.pixel) * len(cells)))


def chromatin_contrast(cells: Cells, stains) -> float:
    inside = cells.depth < 0.8
    return float(
        np.std(np.log(ndimage.gaussian_filter(on_canvas(cells, stains[DNA]), 1.0).ravel()[cells.pixel[inside]]))
    )


def er_roughness(cells: Cells, stains) -> float:
    image = np.log(on_canvas(cells, stains[ER]) + 1e-9)
    ring = on_canvas(cells, (cells.rim > 2) & (cells.edge < 0.8)) > 0
    return float(np.std((image - ndimage.gaussian_filter(image, 3))[ring]))


def thread_length(cells: Cells, stains) -> float:
    mask = on_canvas(cells, stains[MITO] > np.quantile(stains[MITO], 0.85)) > 0
    return float(mask.sum() / ndimage.label(mask, np.ones((3, 3)))[1])


def stripe_coherence(cells: Cells, stains) -> float:
    gy, gx = np.gradient(ndimage.gaussian_filter(np.log(on_canvas(cells, stains[AGP]) + 1e-9), 0.7))
    rows = (cells.rim > 2) & (cells.edge < 0.7)
    pixel, angle = cells.pixel[rows], cells.axis[cells.cell[rows]]
    along = gx.ravel()[pixel] * np.cos(angle) + gy.ravel()[pixel] * np.sin(angle)
    across = gy.ravel()[pixel] * np.cos(angle) - gx.ravel()[pixel] * np.sin(angle)
    return float(np.mean(np.abs(across)) / np.mean(np.abs(along)))


def nucleoli(cells: Cells, stains) -> np.ndarray:
    inside = np.where(cells.depth < 1, stains[RNA], 0)
    floor = np.array([np.median(part[part > 0]) for part in np.split(inside, cells.start[1:])])
    return np.maximum(inside - 1.3 * floor[cells.cell], 0) + 1e-12


def nucleoli_count(cells: Cells, stains) -> float:
    spots = on_canvas(cells, nucleoli(cells, stains))
    peaks = (spots == ndimage.maximum_filter(spots, 3)) & (spots > 0.2 * spots.max())
    return float(peaks.sum() / len(cells))


def at_contacts(cells: Cells, stains) -> float:
    border = cells.edge > 0.9
    contact, free = border & cells.contact, border & ~cells.contact
    return float(np.mean(stains[AGP][contact]) / np.mean(stains[AGP][free]))


# What an axis is called to change, measured on the stains alone: a larger number at +2 than at -2, by this factor or step.
MEASURES: dict[str, tuple[Callable[[Cells, list[np.ndarray]], float], float, str]] = {
    "nucleus_size": (lambda c, s: float(np.mean(per_cell(c, c.rim < 0))), 1.8, "factor"),
    "nucleus_elongation": (lambda c, s: aspect(c, s[DNA]), 1.3, "factor"),
    "cell_elongation": (lambda c, s: aspect(c, np.ones(len(c.pixel))), 1.3, "factor"),
    "edge_spikes": (outline_roughness, 1.15, "factor"),
    "chromatin_clumping": (chromatin_contrast, 1.3, "factor"),
    "er_network": (er_roughness, 1.4, "factor"),
    "mito_connectivity": (thread_length, 1.5, "factor"),
    "actin_alignment": (stripe_coherence, 1.4, "factor"),
    "mito_spread": (lambda c, s: float(np.mean(per_cell(c, s[MITO] * c.rim))), 1.4, "factor"),
    "nucleoli_rim": (lambda c, s: float(np.sum(nucleoli(c, s) * c.depth) / np.sum(nucleoli(c, s))), 0.25, "step"),
    "nucleoli_number": (nucleoli_count, 2.0, "factor"),
    "golgi_dispersal": (lambda c, s: -float(np.mean(np.abs(direction(c, golgi(c, s))))), 0.3, "step"),
    "golgi_to_neighbour": (
        lambda c, s: agreement(direction(c, golgi(c, s)), np.exp(1j * c.neighbour)), 0.9, "step"
    ),
    "er_to_golgi": (lambda c, s: agreement(direction(c, s[ER] * (c.rim > 0)), direction(c, golgi(c, s))), 0.7, "step"),
    "mito_to_golgi": (
        lambda c, s: agreement(direction(c, s[MITO] * (c.rim > 0)), direction(c, golgi(c, s))), 0.7, "step"
    ),
    "contact_actin": (at_contacts, 3.0, "factor"),
}  # fmt: skip


@pytest.mark.parametrize("axis", NAMES)
def test_axis_changes_what_it_names(axis):
    measure, least, kind = MEASURES[axis]
    low, high = (measure(*stained(axis, value)) for value in (-2.0, 2.0))
    assert (high / low if kind == "factor" else high - low) > least, (low, high)


@pytest.mark.parametrize("axis", NAMES)
@pytest.mark.parametrize("value", [-2.0, 2.0])
def test_every_channel_of_every_cell_sums_to_one(axis, value):
    cells, stains = stained(axis, value)
    for share in stains:
        np.testing.assert_allclose(per_cell(cells, share), 1, rtol=2e-4)


@pytest.mark.parametrize(("axis", "channel"), [("er_to_golgi", ER), ("mito_to_golgi", MITO)])
def test_a_relation_does_not_show_in_either_organelle_alone(axis, channel):
    low, high = (stained(axis, value) for value in (-2.0, 2.0))
    one_sided = [np.abs(direction(cells, stains[channel] * (cells.rim > 0))).mean() for cells, stains in (low, high)]
    assert abs(one_sided[0] - one_sided[1]) < 0.06
    for (c, s), (d, t) in [(low, high)]:
        assert abs(np.std(np.log(s[channel] + 1e-6)) - np.std(np.log(t[channel] + 1e-6))) < 0.06
        assert len(c.pixel) == len(d.pixel)


def test_amplitude_is_blind_to_the_phenotype():
    totals = [paint(stream("paint"), stained("golgi_dispersal", value)[0]).sum((1, 2)) for value in (-2.0, 2.0)]
    np.testing.assert_allclose(np.log(totals[0]), np.log(totals[1]), atol=0.15)  # other draws of the same amplitudes


def test_pixels_belong_to_the_cell_they_lie_in():
    cells, _ = stained("nucleus_size", 0.0)
    assert len(cells) >= 40
    np.testing.assert_array_equal(cells.label.ravel()[cells.pixel], cells.cell)
    assert (np.diff(cells.cell) >= 0).all()
    np.testing.assert_array_equal(cells.cell[cells.start], np.arange(len(cells)))
    centre = cells.label[np.rint(cells.y).astype(int), np.rint(cells.x).astype(int)]
    np.testing.assert_array_equal(centre, np.arange(len(cells)))
    assert (cells.rim[cells.depth < 0.99] < 0).all()
    assert (cells.rim[cells.depth > 1.01] > 0).all()


def test_cells_of_a_perturbation_shift_by_effect_times_penetrance():
    effect = np.zeros(len(AXES))
    effect[3] = 2.0
    phenotype, response = draw_cells(stream("cells"), 20_000, effect, penetrance=0.7)
    assert (response > 0).mean() == pytest.approx(0.7, abs=0.015)
    expected = 2.0 * 0.7 * np.exp(0.25**2 / 2)
    assert phenotype[:, 3].mean() == pytest.approx(expected, abs=0.04)
    np.testing.assert_allclose(np.delete(phenotype, 3, 1).mean(0), 0, atol=5 * CELL_SD / np.sqrt(20_000))
    np.testing.assert_allclose(phenotype[response == 0].std(0), CELL_SD, rtol=0.05)
