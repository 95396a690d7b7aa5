"""SMILES ▶ embeddings: Morgan fingerprints through a perceptron, as in CLOOME (METHODS §8).

Towers share one interface: `tokenize(texts)` once, `take(tokens, rows)` for the rows a step needs, `forward(*taken)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from morphoclip.models.norm import BatchNorm


class MorganEncoder(nn.Module):
    """Morgan fingerprint ▶ hidden layers with batch norm over ranks and ReLU (Sanchez-Fernandez et al. 2023).

    Args:
        radius, bits: of the fingerprint.
        counts: how often each substructure occurs instead of whether it does.
        chirality: tell stereoisomers apart.
        widths: hidden layers; [] gives the fingerprint itself.
        dropout: after each hidden layer.
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


def read_smiles(smiles: str):
    """The RDKit molecule of a SMILES.

    Raises:
        ValueError: there is none.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles) if smiles else None
    if molecule is None:
        raise ValueError(
            f"{smiles!r} is no SMILES that RDKit reads: correct Metadata_smiles, or let a text tower read this modality "
            "(text=by_modality)"
        )
    return molecule


def fingerprints(smiles: Sequence[str], radius: int, bits: int, counts: bool, chirality: bool) -> np.ndarray:
    """Morgan fingerprints (U, bits) float32, 0 and 1 or counts. Raises as `read_smiles` does."""
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits, includeChirality=chirality)
    read = generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy
    return np.stack([read(read_smiles(text)) for text in smiles]).astype(np.float32)
