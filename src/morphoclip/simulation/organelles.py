"""Five stains of cells: densities over a cell's pixels, and points drawn from densities.

Every part of a channel is a share of the cell's total, so the sum of a channel over a cell does not depend on its
phenotype; then a lognormal amplitude, independent of the phenotype, sets the cell's brightness.
"""

from __future__ import annotations

import numpy as np

from morphoclip.simulation.cells import Cells
from morphoclip.simulation.texture import BANK, look_up

CONTENT = np.array([2.3e6, 3.3e6, 5.8e6, 3.0e6, 1.0e6], np.float32)  # counts per cell in DNA, ER, RNA, AGP, Mito
AMPLITUDE_SD = 0.22  # log-spread of a cell's brightness, mostly common to its channels
GOLGI_POINTS = 110
MITO_POINTS = 420
MAX_NUCLEOLI = 7


def paint(rng: np.random.Generator, cells: Cells) -> np.ndarray:
    """(5, side, side) float32 counts before the microscope, channels DNA, ER, RNA, AGP, Mito."""
    shares = stain(rng, cells)
    common, own = rng.standard_normal((len(cells), 1)), rng.standard_normal((len(cells), 5))
    amplitude = np.exp(AMPLITUDE_SD * (0.8 * common + 0.6 * own)).astype(np.float32) * CONTENT
    canvas = np.zeros((5, cells.side * cells.side), np.float32)
    for channel, share in enumerate(shares):
        canvas[channel, cells.pixel] = share * amplitude[cells.cell, channel]
    return canvas.reshape(5, cells.side, cells.side)


def stain(rng: np.random.Generator, cells: Cells) -> list[np.ndarray]:
    """Five (P,) float32 densities over the cells' pixels, each summing to 1 over every cell."""
    golgi = _side(rng, cells.neighbour, cells.trait("golgi_to_neighbour"))
    er_side = _side(rng, golgi, cells.trait("er_to_golgi"))
    mito_side = _side(rng, golgi, cells.trait("mito_to_golgi"))
    place = rng.integers(0, BANK, (6, 2, len(cells)))
    inside = _sigmoid(-cells.rim / 0.5)
    outside = 1 - inside
    height = 0.18 + 0.82 * (1 - cells.edge**2)  # a spread cell is flat at its border
    nucleoli = _nucleoli(rng, cells) * inside
    reticulum = _reticulum(cells, place[0], er_side) * outside * height
    body = outside * height * np.exp(0.22 * _noise(cells, 2.2, place[1]))

    dna = inside * _chromatin(cells, place[2], place[3]) * (1 - 0.45 * np.minimum(nucleoli, 1))
    er = 0.90 * cells.share(reticulum) + 0.10 * cells.share(inside)
    cytoplasm = body * (0.5 + np.exp(-np.maximum(cells.rim, 0) / 9))
    rna = 0.75 * cells.share(cytoplasm) + 0.16 * cells.share(inside) + 0.09 * cells.share(nucleoli + 1e-6)
    agp = (
        0.17 * cells.share(_golgi(rng, cells, golgi))
        + 0.22 * cells.share(_cortex(cells))
        + 0.50 * cells.share(_fibres(cells, place[4]) * (outside * height + 0.45 * inside))
        + 0.11 * cells.share(inside)
    )
    mito = 0.54 * cells.share(_mitochondria(rng, cells, mito_side)) + 0.46 * cells.share(body + 0.35 * inside)
    return [cells.share(dna), er, rna, agp, mito]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip(-x, -30, 30)))


def _side(rng: np.random.Generator, reference: np.ndarray, trait: np.ndarray) -> np.ndarray:
    """(K,) directions that lean towards `reference` for a positive trait and away for a negative one.

    Von Mises of concentration 2|trait|: uniform at 0, so that the asymmetry of an organelle does not depend on the trait.
    """
    lean = rng.vonmises(0.0, 2.0 * np.abs(trait) + 1e-6)
    return reference + lean + np.where(trait < 0, np.pi, 0.0)


def _noise(cells: Cells, sigma: float, place: np.ndarray) -> np.ndarray:
    return look_up(sigma, cells.dy + place[0][cells.cell], cells.dx + place[1][cells.cell])


def _chromatin(cells: Cells, fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    clumps = _sigmoid(1.5 * cells.trait("chromatin_clumping") - 0.3).astype(np.float32)[cells.cell]
    texture = 0.28 * (1 - clumps) * _noise(cells, 0.9, fine) + (0.1 + 0.52 * clumps) * _noise(cells, 2.2, coarse)
    return np.exp(texture)


def _nucleoli(rng: np.random.Generator, cells: Cells) -> np.ndarray:
    """(P,) bright spots in the nucleus: `nucleoli_number` of them at `nucleoli_rim` of its radius."""
    count = len(cells)
    number = np.clip(
        np.rint(2.8 * np.exp(0.42 * cells.trait("nucleoli_number")) + 0.5 * rng.standard_normal(count)), 1, 7
    )
    distance = _sigmoid(0.25 + 1.2 * cells.trait("nucleoli_rim"))[:, None] * 0.84 + 0.06 * rng.standard_normal(
        (count, MAX_NUCLEOLI)
    )
    turn = rng.uniform(0, 2 * np.pi, count)[:, None] + np.arange(MAX_NUCLEOLI) * (2 * np.pi / number)[:, None]
    turn = turn + 0.3 * rng.standard_normal(turn.shape)
    width = 1.75 * np.sqrt(2.8 / number)
    rows = np.flatnonzero(cells.depth < 1)
    cell, depth = cells.cell[rows], cells.depth[rows]
    # The nucleus is mapped to the unit disc: direction as seen, radius relative to the envelope.
    u = depth * cells.dx[rows] / cells.radius[rows]
    v = depth * cells.dy[rows] / cells.radius[rows]
    scale = (cells.radius[rows] / np.maximum(depth, 0.05)).astype(np.float32)
    spots = np.zeros(len(cells.pixel), np.float32)
    for j in range(MAX_NUCLEOLI):
        su = (distance[:, j] * np.cos(turn[:, j])).astype(np.float32)[cell]
        sv = (distance[:, j] * np.sin(turn[:, j])).astype(np.float32)[cell]
        present = (j < number)[cell]
        squared = ((u - su) ** 2 + (v - sv) ** 2) * scale**2 / (width**2).astype(np.float32)[cell]
        spots[rows] += present * np.exp(-squared)
    return spots


def _reticulum(cells: Cells, place: np.ndarray, side: np.ndarray) -> np.ndarray:
    """(P,) ER: bright around the nucleus, heavier on one side, smooth or a network of tubules."""
    open_ = _sigmoid(1.4 * cells.trait("er_network") - 1.1).astype(np.float32)[cells.cell]
    network = 0.55 - np.abs(_noise(cells, 1.7, place))  # ridges along the zeros of the noise
    fall = 0.22 + np.exp(-np.maximum(cells.rim, 0) / 7)
    return fall * np.exp((0.12 + 1.15 * open_) * network + 0.85 * cells.facing(side))


def _fibres(cells: Cells, place: np.ndarray) -> np.ndarray:
    """(P,) actin of the cell body: stripes along the long axis, or mottle of the same contrast."""
    cos, sin = np.cos(cells.axis).astype(np.float32)[cells.cell], np.sin(cells.axis).astype(np.float32)[cells.cell]
    along, across = cells.dx * cos + cells.dy * sin, cells.dy * cos - cells.dx * sin
    stripes = look_up(1.2, across + place[0][cells.cell], 0.12 * along + place[1][cells.cell])
    weight = _sigmoid(1.4 * cells.trait("actin_alignment")).astype(np.float32)[cells.cell]
    mixed = weight * stripes + (1 - weight) * _noise(cells, 1.2, place[::-1])
    return np.exp(0.42 * mixed / np.sqrt(weight**2 + (1 - weight) ** 2))


def _cortex(cells: Cells) -> np.ndarray:
    """(P,) actin under the border, divided between contacts and free edges."""
    prefer = (1.2 * cells.trait("contact_actin")).astype(np.float32)[cells.cell]
    band = np.exp(-((1 - cells.edge) / 0.08)) + 0.002
    return band * np.exp(np.where(cells.contact, prefer, -prefer))


def _golgi(rng: np.random.Generator, cells: Cells, side: np.ndarray) -> np.ndarray:
    """(P,) specks beside the nucleus: a crescent facing `side`, or scattered."""
    scatter = cells.trait("golgi_dispersal")
    focus = (5.0 * np.exp(-0.95 * np.maximum(scatter, -1.5))).astype(np.float32)[cells.cell]
    distance = (2.2 + 1.6 * np.log1p(np.exp(1.3 * scatter))).astype(np.float32)[cells.cell]
    spread = (1.3 + 0.9 * np.log1p(np.exp(1.3 * scatter))).astype(np.float32)[cells.cell]
    where = np.exp(-(((cells.rim - distance) / spread) ** 2) + focus * (cells.facing(side) - 1))
    where = np.where(cells.rim > 0, where, 0) + 1e-9
    rows = cells.draw(rng, where, GOLGI_POINTS)
    weight = rng.gamma(0.8, size=rows.shape)
    return np.bincount(rows.ravel(), weight.ravel(), len(cells.pixel)).astype(np.float32) + 1e-7


def _mitochondria(rng: np.random.Generator, cells: Cells, side: np.ndarray) -> np.ndarray:
    """(P,) threads: random walks that start where mitochondria belong and break every `length` steps."""
    spread = cells.trait("mito_spread").astype(np.float32)[cells.cell]
    slope = np.clip(0.09 - 0.12 * spread, -0.3, 0.4)
    where = np.exp(-slope * cells.rim + 1.5 * cells.facing(side)) * (cells.rim > 0.8) * (cells.edge < 0.93) + 1e-9
    seeds = cells.draw(rng, where, MITO_POINTS)
    length = np.rint(np.clip(9 * np.exp(0.75 * cells.trait("mito_connectivity")), 1, 60)).astype(np.int64)[:, None]
    step = np.arange(MITO_POINTS)[None]
    begin = step - step % length
    turn = np.cumsum(0.33 * rng.standard_normal((len(cells), MITO_POINTS), dtype=np.float32), axis=1)
    walk_y, walk_x = np.cumsum(np.sin(turn), axis=1), np.cumsum(np.cos(turn), axis=1)
    row, column = np.divmod(cells.pixel, cells.side)
    seed = np.take_along_axis(seeds, begin, 1)
    y = np.rint(row[seed] + walk_y - np.take_along_axis(walk_y, begin, 1)).astype(np.int64)
    x = np.rint(column[seed] + walk_x - np.take_along_axis(walk_x, begin, 1)).astype(np.int64)
    y, x = np.clip(y, 0, cells.side - 1), np.clip(x, 0, cells.side - 1)
    flat = (y * cells.side + x).ravel()
    home = np.full(cells.side * cells.side, -1, np.int64)
    home[cells.pixel] = np.arange(len(cells.pixel))
    target = home[flat]
    owner = np.repeat(np.arange(len(cells)), MITO_POINTS)
    stays = (target >= 0) & (cells.cell[target] == owner) & (cells.rim[target] > 0)
    return np.bincount(target[stays], minlength=len(cells.pixel)).astype(np.float32) + 1e-7
