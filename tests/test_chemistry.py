"""One notion of a molecule."""

from __future__ import annotations

import numpy as np
import pytest

from morphoclip.chemistry import (
    canonical_structure,
    element_graph,
    fingerprint,
    inchikey_block,
    read_molecule,
    scaffold,
)

# stereoisomers, tautomers and a salt of one compound are that compound; other molecules are not
SAME = [
    ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),
    ("Oc1ccccn1", "O=c1cccc[nH]1"),
    ("CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_forms_of_one_molecule_have_one_structure_and_one_graph(a, b):
    assert canonical_structure(a) == canonical_structure(b) != ""
    assert element_graph(a) == element_graph(b) != ""
    assert canonical_structure(a) != canonical_structure("CCN")


def test_molecules_of_one_graph_may_differ():
    assert element_graph("c1ccccc1") == element_graph("C1CCCCC1")
    assert canonical_structure("c1ccccc1") != canonical_structure("C1CCCCC1")


def test_what_cannot_be_read_is_blank():
    assert canonical_structure("not a molecule") == element_graph("") == scaffold("not a molecule") == ""
    assert read_molecule("") is None
    assert fingerprint("not a molecule") is None
    assert scaffold("CCO") == ""
    assert scaffold("Cc1ccccc1") == "c1ccccc1"


@pytest.mark.parametrize("suffix", [" |r|", " |o1:1|", " |&1:1,r| alanine", " |not an extension|"])
def test_the_extensions_of_a_cxsmiles_are_left_out(suffix):
    assert canonical_structure(f"C[C@H](N)C(=O)O{suffix}") == canonical_structure("CC(N)C(=O)O")
    np.testing.assert_array_equal(fingerprint(f"CCO{suffix}"), fingerprint("CCO"))


def test_the_first_block_of_the_inchikey_is_that_of_all_stereoisomers():
    assert inchikey_block("C[C@H](N)C(=O)O") == inchikey_block("CC(N)C(=O)O |r|") == "QNAYBMKLOCPYGJ"
    assert inchikey_block("") == inchikey_block("not a molecule") == ""


def test_fingerprints_are_rdkits():
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.MolFromSmiles("C[C@H](N)C(=O)Oc1ccccc1")
    old = AllChem.GetMorganFingerprintAsBitVect(molecule, 3, nBits=2048, useChirality=True)
    np.testing.assert_array_equal(fingerprint("C[C@H](N)C(=O)Oc1ccccc1"), np.array(old))
    counts = fingerprint("CCCCCC", counts=True, bits=64)
    assert counts.max() > 1
    assert ((counts > 0) == (fingerprint("CCCCCC", bits=64) > 0)).all()
    assert (fingerprint("C[C@H](N)C(=O)O") != fingerprint("C[C@@H](N)C(=O)O")).any()
    achiral = [fingerprint(smiles, chirality=False) for smiles in ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O")]
    np.testing.assert_array_equal(*achiral)
