"""Positions of cells, and the cell of each pixel: uneven clusters of touching, spread cells with background between.

All later steps work on the pixels of cells, as flat arrays sorted by cell: fifty thousand numbers per operation instead
of thirty patches, and sums over cells by one `reduceat`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from morphoclip.simulation.phenotype import NAMES
from morphoclip.simulation.texture import sample_noise

MARGIN = 32  # px drawn around a field, so that cells reach in from outside
MIN_DISTANCE = 20.0  # px between nuclear centres
CLUSTERING = 1.4  # weight of the smooth density map against uniform positions
REACH = 26.0  # px, geometric mean radius of an uncrowded cell
NUCLEUS = 8.8  # px, geometric mean radius of a nucleus
ANGLES = 128  # samples of a cell's outline


@dataclass(frozen=True)
class Cells:
    """K cells on a square canvas and their P pixels, sorted by cell.

    Attributes:
        side: canvas side in px; the field is its centre, `MARGIN` in from every edge.
        y, x: (K,) nuclear centres.
        phenotype: (K, axes).
        axis: (K,) direction of the long axis, radians.
        neighbour: (K,) direction of the nearest neighbour's nucleus, radians.
        label: (side, side) int16, the pixel's cell or -1.
        pixel: (P,) flat canvas index; cell: (P,) its cell; start: (K,) first pixel of each cell.
        dy, dx: (P,) offset from the own nucleus' centre in px; radius: (P,) its length.
        rim: (P,) distance to the nuclear envelope in px, negative inside.
        depth: (P,) relative distance from the nucleus in units of the nucleus' radius, < 1 inside.
        edge: (P,) 0 at the centre, 1 at the border of the cell.
        contact: (P,) bool, the border nearby is shared with another cell.
    """

    side: int
    y: np.ndarray
    x: np.ndarray
    phenotype: np.ndarray
    axis: np.ndarray
    neighbour: np.ndarray
    label: np.ndarray
    pixel: np.ndarray
    cell: np.ndarray
    start: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    rim: np.ndarray
    depth: np.ndarray
    edge: np.ndarray
    contact: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def trait(self, name: str) -> np.ndarray:
        """(K,) values of one axis, clipped to ±3.5, beyond which cells cannot be drawn."""
        return np.clip(self.phenotype[:, NAMES.index(name)], -3.5, 3.5)

    @cached_property
    def radius(self) -> np.ndarray:
        return np.sqrt(self.dx * self.dx + self.dy * self.dy) + np.float32(1e-3)

    def facing(self, angle: np.ndarray) -> np.ndarray:
        """(P,) cosine between a pixel's direction from the nucleus and its cell's `angle` (K,)."""
        cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
        return (self.dx * cos[self.cell] + self.dy * sin[self.cell]) / self.radius

    def share(self, density: np.ndarray) -> np.ndarray:
        """`density` (P,) scaled so that it sums to 1 over each cell."""
        total = np.add.reduceat(density, self.start)
        return density / np.maximum(total, 1e-12)[self.cell]

    def draw(self, rng: np.random.Generator, density: np.ndarray, count: int) -> np.ndarray:
        """(K, count) rows of pixels drawn from `density` (P,), each cell from its own pixels."""
        cumulative = np.cumsum(density, dtype=np.float64)
        stop = np.append(self.start[1:], len(density))
        below = np.where(self.start > 0, cumulative[self.start - 1], 0.0)
        target = below[:, None] + rng.random((len(self), count)) * (cumulative[stop - 1] - below)[:, None]
        rows = np.searchsorted(cumulative, target.ravel(), side="right").reshape(target.shape)
        return np.clip(rows, self.start[:, None], stop[:, None] - 1)


def place(rng: np.random.Generator, side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of at most `count` centres on a canvas, in clusters, no two nearer than `MIN_DISTANCE`."""
    tries = 8 * count + 20
    y, x = rng.uniform(2, side - 3, (2, tries)).astype(np.float32)
    crowd = sample_noise(rng, 24.0, y, x)
    order = np.argsort(-(CLUSTERING * crowd + rng.gumbel(size=tries)), kind="stable")
    y, x = y[order], x[order]
    close = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 < MIN_DISTANCE**2
    free = np.ones(tries, bool)
    chosen: list[int] = []
    for i in range(tries):
        if free[i]:
            chosen.append(i)
            if len(chosen) == count:
                break
            free &= ~close[i]
    return y[chosen], x[chosen]


def lay_out(
    rng: np.random.Generator, side: int, y: np.ndarray, x: np.ndarray, phenotype: np.ndarray, rounding: np.ndarray
) -> Cells:
    """Give every cell an outline, and assign every pixel to the cell with the smallest relative distance.

    Args:
        y, x: (K,) nuclear centres on the canvas.
        phenotype: (K, axes).
        rounding: (K,) 0 for a spread cell to 1 for one that has rounded up.
    """
    count = len(y)
    trait = {name: np.clip(phenotype[:, i], -3.5, 3.5) for i, name in enumerate(NAMES)}
    axis = rng.uniform(0, 2 * np.pi, count)
    outline = _outlines(rng, trait, rounding)
    nucleus = _nuclei(rng, trait, rounding, axis)
    cost = np.full((2, side, side), np.inf, np.float32)  # lowest and second lowest
    label = np.full((side, side), -1, np.int16)
    for k in range(count):
        _claim(cost, label, k, y[k], x[k], axis[k], outline[k], [n[k] for n in nucleus])

    pixel = np.flatnonzero(label >= 0).astype(np.int32)
    cell = label.ravel()[pixel]
    order = np.argsort(cell, kind="stable")
    pixel, cell = pixel[order], cell[order].astype(np.int32)
    row, column = np.divmod(pixel, side)
    dy, dx = (row - y[cell]).astype(np.float32), (column - x[cell]).astype(np.float32)
    depth = _depth(dy, dx, *(n[cell] for n in nucleus))
    radius = np.sqrt(dx * dx + dy * dy)
    first, second = cost[0].ravel()[pixel], cost[1].ravel()[pixel]
    return Cells(
        side=side,
        y=y,
        x=x,
        phenotype=phenotype,
        axis=axis,
        neighbour=_nearest_direction(y, x),
        label=label,
        pixel=pixel,
        cell=cell,
        start=np.searchsorted(cell, np.arange(count)),
        dy=dy,
        dx=dx,
        rim=np.where(depth > 0.05, radius - radius / np.maximum(depth, 0.05), -nucleus[1][cell]).astype(np.float32),
        depth=depth,
        edge=np.clip(first / np.minimum(second, 1.0), 0, 1),
        contact=second < 1.12,
    )


def _outlines(rng: np.random.Generator, trait: dict[str, np.ndarray], rounding: np.ndarray) -> np.ndarray:
    """(K, ANGLES) float32 reach in px by direction from the long axis."""
    count = len(rounding)
    phi = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    ratio = (1 + np.exp(-0.65 + 0.7 * np.minimum(trait["cell_elongation"], 2.6))) * np.exp(
        0.1 * rng.standard_normal(count)
    )
    ratio = 1 + (np.maximum(ratio, 1) - 1) * (1 - rounding)
    size = REACH * np.exp(0.13 * rng.standard_normal(count)) * (1 - 0.42 * rounding)
    long, short = size * ratio**0.62, size * ratio**-0.38
    ellipse = 1 / np.sqrt((np.cos(phi) / long[:, None]) ** 2 + (np.sin(phi) / short[:, None]) ** 2)
    corners = np.exp(0.22 * _harmonics(rng, count, phi, range(3, 6)))  # stretched corners, hollow sides
    rough = np.minimum(0.03 * np.exp(0.9 * trait["edge_spikes"]), 0.22)
    spikes = rough[:, None] * _harmonics(rng, count, phi, range(9, 17))
    wobble = np.clip(1 + (corners - 1 + spikes) * (1 - 0.8 * rounding)[:, None], 0.45, 1.9)
    return (ellipse * wobble).astype(np.float32)


def _harmonics(rng: np.random.Generator, count: int, phi: np.ndarray, orders: range) -> np.ndarray:
    """(count, len(phi)) random periodic functions of unit variance."""
    a, b = rng.standard_normal((2, count, len(orders))) / np.sqrt(len(orders))
    waves = np.outer(np.asarray(orders), phi)
    return a @ np.cos(waves) + b @ np.sin(waves)


def _nuclei(rng: np.random.Generator, trait: dict[str, np.ndarray], rounding: np.ndarray, axis: np.ndarray) -> list:
    """Long and short radius in px and direction of each nucleus, (K,) float32 each."""
    count = len(axis)
    size = NUCLEUS * np.exp(0.12 * np.clip(trait["nucleus_size"], -2.8, 2.8)) * (1 - 0.3 * rounding)
    ratio = 1 + np.exp(-1.15 + 0.7 * np.minimum(trait["nucleus_elongation"], 2.2)) * (1 - 0.5 * rounding)
    tilt = axis + 0.35 * rng.standard_normal(count)
    return [v.astype(np.float32) for v in (size * np.sqrt(ratio), size / np.sqrt(ratio), tilt)]


def _depth(dy, dx, long, short, tilt) -> np.ndarray:
    """Elliptic radius: 1 on the nuclear envelope."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.sqrt(((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2)


def _claim(cost, label, k: int, y: float, x: float, axis: float, outline: np.ndarray, nucleus: list) -> None:
    """Enter cell k into `cost` and `label` where its relative distance is below 1."""
    side, reach = label.shape[0], int(outline.max()) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    window = (slice(top, min(int(y) + reach + 1, side)), slice(left, min(int(x) + reach + 1, side)))
    dy = np.arange(top, window[0].stop, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(left, window[1].stop, dtype=np.float32)[None] - np.float32(x)
    turn = np.arctan2(dy, dx) - np.float32(axis)
    direction = (turn * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
    relative = np.sqrt(dy * dy + dx * dx) / outline[direction]
    # A nucleus always belongs to its own cell.
    relative *= np.where(_depth(dy, dx, *nucleus) < 1.25, np.float32(0.35), np.float32(1))
    lowest, second = cost[0][window], cost[1][window]
    wins = relative < lowest
    second[...] = np.where(wins, lowest, np.minimum(second, relative))
    lowest[wins] = relative[wins]
    label[window][wins & (relative < 1)] = k


def _nearest_direction(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(K,) direction to the nearest other nucleus; 0 for a lone cell."""
    if len(y) < 2:
        return np.zeros(len(y))
    dy, dx = y[None] - y[:, None], x[None] - x[:, None]
    distance = dy**2 + dx**2
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argmin(1)
    rows = np.arange(len(y))
    return np.arctan2(dy[rows, nearest], dx[rows, nearest])
