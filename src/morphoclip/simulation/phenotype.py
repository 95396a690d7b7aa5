"""The axes of cell morphology, and the phenotypes of cells under a perturbation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One axis of morphology; 0 is an untreated cell and ±2 a clearly visible change.

    Attributes:
        name: column name of the truth tables.
        kind: shape, texture, localisation, or relation (relative position of two structures).
        meaning: appearance at positive ◀ at negative values.
    """

    name: str
    kind: str
    meaning: str


AXES: tuple[Axis, ...] = (
    Axis("nucleus_size", "shape", "large ◀ small nucleus, its DNA content unchanged"),
    Axis("nucleus_elongation", "shape", "cigar-shaped ◀ round nucleus"),
    Axis("cell_elongation", "shape", "spindly ◀ round cell"),
    Axis("edge_spikes", "shape", "spiky outline, retraction fibres ◀ smooth outline"),
    Axis("chromatin_clumping", "texture", "coarse clumps ◀ even chromatin"),
    Axis("er_network", "texture", "open tubular ER network ◀ smooth ER"),
    Axis("mito_connectivity", "texture", "long mitochondrial threads ◀ fragments"),
    Axis("actin_alignment", "texture", "parallel stress fibres ◀ isotropic mottle of the same contrast"),
    Axis("mito_spread", "localisation", "mitochondria at the cell's periphery ◀ around the nucleus"),
    Axis("nucleoli_rim", "localisation", "nucleoli against the nuclear envelope ◀ at the centre"),
    Axis("nucleoli_number", "localisation", "many small ◀ one large nucleolus, the total unchanged"),
    Axis("golgi_dispersal", "localisation", "Golgi scattered through the cell ◀ one compact crescent"),
    Axis("golgi_to_neighbour", "relation", "Golgi on the side of the nearest neighbour ◀ on the far side"),
    Axis("er_to_golgi", "relation", "ER heavy on the Golgi's side ◀ opposite to it"),
    Axis("mito_to_golgi", "relation", "mitochondria on the Golgi's side ◀ opposite to it"),
    Axis("contact_actin", "relation", "cortical actin at cell-cell contacts ◀ at free edges"),
)
NAMES: tuple[str, ...] = tuple(axis.name for axis in AXES)
KINDS: tuple[str, ...] = ("shape", "texture", "localisation", "relation")

CELL_SD = 0.55  # cell-to-cell spread of every axis, in axis units
RESPONSE_SD = 0.25  # log-spread of a responding cell's response


def draw_cells(
    rng: np.random.Generator, count: int, effect: np.ndarray, penetrance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Phenotypes of `count` cells under a perturbation.

    Args:
        effect: (axes,) shift of a fully responding cell.
        penetrance: probability that a cell responds at all.

    Returns:
        (count, axes) float32 phenotypes before any drift, and (count,) float32 response, 0 where a cell does not respond.
    """
    responds = rng.random(count) < penetrance
    response = (responds * np.exp(RESPONSE_SD * rng.standard_normal(count))).astype(np.float32)
    own = CELL_SD * rng.standard_normal((count, len(AXES)), dtype=np.float32)
    return own + response[:, None] * effect.astype(np.float32), response
