"""Molecules: the canonical structure (without stereochemistry, salt, tautomer), the scaffold and the fingerprint."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rdkit.Chem import Mol


def read_molecule(smiles: str) -> Mol | None:
    """The molecule of a SMILES string; None if it is blank or RDKit cannot read it. RDKit's messages are switched off."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]  # RDKit's stubs do not list it
    return Chem.MolFromSmiles(smiles) if smiles else None


def _parent(smiles: str) -> Mol | None:
    """The largest fragment, uncharged and without stereochemistry."""
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    molecule = read_molecule(smiles)
    if molecule is None:
        return None
    molecule = rdMolStandardize.LargestFragmentChooser().choose(molecule)
    molecule = rdMolStandardize.Uncharger().uncharge(molecule)
    Chem.RemoveStereochemistry(molecule)
    return molecule


@lru_cache(maxsize=1 << 17)
def canonical_structure(smiles: str) -> str:
    """SMILES of the largest fragment's canonical tautomer without stereochemistry; '' if RDKit cannot read it."""
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    molecule = _parent(smiles)
    if molecule is None:
        return ""
    molecule = rdMolStandardize.TautomerEnumerator().Canonicalize(molecule)
    Chem.RemoveStereochemistry(molecule)
    return Chem.MolToSmiles(molecule)


@lru_cache(maxsize=1 << 17)
def element_graph(smiles: str) -> str:
    """The graph of elements, without bond orders, charges and hydrogens; '' if RDKit cannot read the SMILES.

    Molecules with equal `canonical_structure` have equal graphs, and a graph costs a hundredth of the structure: only
    molecules with equal graphs need comparing.
    """
    from rdkit.Chem import rdMolHash

    molecule = _parent(smiles)
    if molecule is None:
        return ""
    for atom in molecule.GetAtoms():
        atom.SetFormalCharge(0)
    return rdMolHash.MolHash(molecule, rdMolHash.HashFunction.ElementGraph)


@lru_cache(maxsize=1 << 17)
def scaffold(smiles: str) -> str:
    """Murcko scaffold without stereochemistry; '' for acyclic molecules and for SMILES that RDKit cannot read."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    molecule = read_molecule(smiles)
    return "" if molecule is None else MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)


def fingerprint(
    smiles: str, *, radius: int = 3, bits: int = 2048, counts: bool = False, chirality: bool = True
) -> np.ndarray | None:
    """Morgan fingerprint (bits,), uint8, or uint32 with `counts`; None if RDKit cannot read the SMILES.

    Args:
        radius: bonds around each atom.
        counts: count each substructure instead of marking its presence.
        chirality: give stereoisomers different fingerprints.
    """
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    molecule = read_molecule(smiles)
    if molecule is None:
        return None
    generator = GetMorganGenerator(radius=radius, fpSize=bits, includeChirality=chirality)
    return generator.GetCountFingerprintAsNumPy(molecule) if counts else generator.GetFingerprintAsNumPy(molecule)
