"""Molecules: canonical structure (without stereochemistry, salt, tautomer), scaffold, fingerprint, and which
perturbations are one molecule."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from morphoclip import schema

if TYPE_CHECKING:
    from rdkit.Chem import Mol

IDENTITY = (schema.NAME, schema.INCHIKEY, schema.SMILES)  # the columns by which two perturbations can be one molecule
_NO_NAME = ("na", "n/a", "nan", "none", "unknown", "-")  # written where a compound has no name
_CXSMILES = re.compile(r"\s+\|[^|]*\|.*$")


def read_molecule(smiles: str) -> Mol | None:
    """The molecule of a SMILES string; None if it is blank or RDKit cannot read it. RDKit's messages are switched off.

    The extensions of a CXSMILES string (`CCO |r|`) are left out.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]  # RDKit's stubs do not list it
    smiles = _CXSMILES.sub("", smiles).strip()
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
def inchikey_block(smiles: str) -> str:
    """The first block of the InChIKey (14 letters: the connections, without stereochemistry); '' if it cannot be read."""
    from rdkit import Chem

    molecule = read_molecule(smiles)
    return "" if molecule is None else Chem.MolToInchiKey(molecule)[:14]


def molecules(table: pd.DataFrame) -> pd.Series:
    """The molecule of each row, named by the smallest of its perturbation ids; blank for rows without a perturbation.

    Splits, and the scores of what was seen in training, both ask here. Perturbations are one molecule if they share a
    name (in any case), the first block of the InChIKey, or `canonical_structure`, or if a third links them. A blank links
    nothing. Where some rows have only an InChIKey and others only a SMILES string, the key of the latter is computed.

    Args:
        table: `Metadata_perturbation`, and those of `IDENTITY` that are known; rows may repeat a perturbation.

    Returns:
        Strings on the index of `table`, whatever the order of its rows.
    """
    columns = [schema.PERTURBATION, *(c for c in IDENTITY if c in table)]
    text = table[columns].astype(object).where(table[columns].notna(), "").astype(str)
    rows = text[text[schema.PERTURBATION] != ""].drop_duplicates(ignore_index=True)
    smiles = rows[schema.SMILES] if schema.SMILES in rows else pd.Series("", index=rows.index)
    links = [rows[schema.PERTURBATION]]
    if schema.NAME in rows:
        name = rows[schema.NAME].str.strip().str.lower()
        links.append(name.mask(name.isin(_NO_NAME), ""))
    if schema.INCHIKEY in rows:
        links.append(_blocks(rows[schema.INCHIKEY], smiles))
    unit = _linked(rows[schema.PERTURBATION], links)
    unit = _linked(unit, [*links, _structures(smiles, unit)])
    return text[schema.PERTURBATION].map(dict(zip(rows[schema.PERTURBATION], unit, strict=True))).fillna("")


def _blocks(keys: pd.Series, smiles: pd.Series) -> pd.Series:
    """The first block of each InChIKey, computed for rows that lack it if others have a key and no SMILES."""
    block = keys.str.strip().str.upper().str[:14]
    block = block.where(block.str.fullmatch("[A-Z]{14}"), "")
    if ((block != "") & (smiles == "")).any():
        block = block.mask(block == "", smiles.map(inchikey_block))
    return block


def _structures(smiles: pd.Series, unit: pd.Series) -> pd.Series:
    """The canonical structure of rows that share their element graph with a row of another unit; else blank."""
    graph = smiles.map(element_graph)
    several = unit.groupby(graph).transform("nunique") > 1
    return smiles.where(several & (graph != ""), "").map(canonical_structure)


def _linked(unit: pd.Series, links: Sequence[pd.Series]) -> pd.Series:
    """The smallest unit among all rows connected by equal values; blanks do not connect."""
    while True:
        before = unit
        for link in links:
            own = pd.Series([("row", i) for i in range(len(link))], index=link.index)
            unit = unit.groupby(link.where(link != "", own)).transform("min")
        if unit.equals(before):
            return unit


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
