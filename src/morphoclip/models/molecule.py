"""SMILES ▶ embeddings: Morgan fingerprints through a perceptron, as in CLOOME (Sanchez-Fernandez et al. 2023).

Towers have the interface of `tower.Tower`: `tokenize(texts)` once, `take(tokens, rows)` per step, `forward(*taken)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from morphoclip.chemistry import fingerprint, read_molecule
from morphoclip.models.norm import BatchNorm
from morphoclip.models.tower import Tower

if TYPE_CHECKING:
    from rdkit.Chem import Mol


class MorganEncoder(Tower):
    """Morgan fingerprint ▶ hidden layers with batch norm over ranks and ReLU (Sanchez-Fernandez et al. 2023).

    Args:
        radius, bits: radius and length of the fingerprint.
        counts: count each substructure instead of marking its presence.
        chirality: give stereoisomers different fingerprints.
        widths: widths of the hidden layers; [] returns the fingerprint itself.
        dropout: dropout after each hidden layer.
    """

    def __init__(
        self,
        *,
        radius: int = 3,
        bits: int = 1024,
        counts: bool = False,
        chirality: bool = True,
        widths: Sequence[int] = (1024, 1024, 1024, 1024),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.radius, self.bits, self.counts, self.chirality = radius, bits, counts, chirality
        layers: list[nn.Module] = []
        for inputs, outputs in zip([bits, *widths], widths, strict=False):
            layers += [nn.Linear(inputs, outputs, bias=False), BatchNorm(outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.embed_dim = [bits, *widths][-1]

    def tokenize(self, smiles: Sequence[str]) -> tuple[Tensor]:
        """Fingerprints, one tensor (U, bits) float32.

        Raises:
            ValueError: RDKit cannot read a SMILES.
        """
        return (torch.from_numpy(fingerprints(smiles, self.radius, self.bits, self.counts, self.chirality)),)

    @staticmethod
    def take(tokens: tuple[Tensor], rows: Tensor) -> tuple[Tensor]:
        return (tokens[0][rows],)

    def forward(self, fingerprint: Tensor) -> Tensor:
        """Embeddings (U, D) of fingerprints (U, bits)."""
        first = next(self.layers.parameters(), fingerprint)
        return self.layers(fingerprint.to(first.dtype))


def read_smiles(smiles: str) -> Mol:
    """The RDKit molecule of a SMILES.

    Raises:
        ValueError: RDKit cannot read it.
    """
    molecule = read_molecule(smiles)
    if molecule is None:
        raise _unreadable(smiles)
    return molecule


def fingerprints(smiles: Sequence[str], radius: int, bits: int, counts: bool, chirality: bool) -> np.ndarray:
    """Morgan fingerprints (U, bits) float32, 0 and 1 or counts.

    Raises:
        ValueError: as in `read_smiles`.
    """
    rows = []
    for text in smiles:
        row = fingerprint(text, radius=radius, bits=bits, counts=counts, chirality=chirality)
        if row is None:
            raise _unreadable(text)
        rows.append(row)
    return np.stack(rows).astype(np.float32)


def _unreadable(smiles: str) -> ValueError:
    return ValueError(
        f"RDKit cannot read the SMILES {smiles!r}: correct Metadata_smiles, or use a text tower for this modality "
        "(text=by_modality)"
    )
