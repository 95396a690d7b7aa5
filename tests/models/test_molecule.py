"""Fingerprints and doses: what they tell apart, what they refuse."""

import numpy as np
import pytest
import torch

from morphoclip.models import DoseEncoding, MorganEncoder
from morphoclip.models.molecule import fingerprints

ALANINES = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"]


def test_fingerprints_are_those_of_the_molecule_and_not_of_its_spelling():
    ethanol = fingerprints(["CCO", "OCC", "CCN"], 3, 1024, False, True)
    assert np.array_equal(ethanol[0], ethanol[1])
    assert not np.array_equal(ethanol[0], ethanol[2])
    assert set(np.unique(ethanol)) == {0, 1}


def test_chirality_and_counts_are_choices():
    left, right = fingerprints(ALANINES, 3, 1024, False, True)
    assert not np.array_equal(left, right)
    left, right = fingerprints(ALANINES, 3, 1024, False, False)
    assert np.array_equal(left, right)
    assert fingerprints(["CCCCCCCC"], 3, 1024, True, True).max() > 1


def test_the_perceptron_has_the_layers_of_cloome():
    tower = MorganEncoder()
    assert [part.out_features for part in tower.layers if hasattr(part, "out_features")] == [1024] * 4
    assert tower.eval()(*tower.take(tower.tokenize(["CCO", "CCN"]), torch.tensor([1]))).shape == (1, 1024)
    assert MorganEncoder(widths=[], bits=64).embed_dim == 64


def test_a_string_that_is_no_molecule_is_named():
    with pytest.raises(ValueError, match=r"cannot read the SMILES 'loss of: EGFR'"):
        MorganEncoder().tokenize(["CCO", "loss of: EGFR"])
    with pytest.raises(ValueError, match="cannot read the SMILES ''"):
        MorganEncoder().tokenize([""])


def test_dose_encodings():
    dose = torch.tensor([0.1, 1.0, 10.0, torch.nan])
    torch.testing.assert_close(DoseEncoding("log10")(dose)[:, 0], torch.tensor([-1.0, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(
        DoseEncoding("sigmoid")(dose)[:, 0], torch.tensor([1 / (1 + np.e), 0.5, np.e / (1 + np.e), 0.0]).float()
    )
    one_hot = DoseEncoding("one_hot", levels=[10.0, 0.1])
    assert one_hot(dose).tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert DoseEncoding("none")(dose).shape == (4, 0)
    with pytest.raises(ValueError, match="needs levels"):
        DoseEncoding("one_hot")
    with pytest.raises(ValueError, match="'linear'"):
        DoseEncoding("linear")


def test_the_graph_tower_reads_molecules_one_by_one_or_together():
    pytest.importorskip("chemprop", reason="the chemprop extra is not installed")
    from morphoclip.models import GraphEncoder

    torch.manual_seed(0)
    tower = GraphEncoder(width=16, depth=2)
    graphs = tower.tokenize(["CCO", "c1ccccc1", "OCC"])
    together = tower(*tower.take(graphs, torch.tensor([0, 1, 2])))
    alone = tower(*tower.take(graphs, torch.tensor([1])))
    torch.testing.assert_close(together[1:2], alone)
    torch.testing.assert_close(together[0], together[2])
    together.square().sum().backward()
    assert all(p.grad is not None for p in tower.parameters())
    assert tower.embed_dim == together.shape[1] == 16


def test_without_chemprop_the_graph_tower_says_how_to_get_it(monkeypatch):
    import sys

    from morphoclip.models import GraphEncoder

    monkeypatch.setitem(sys.modules, "chemprop.featurizers", None)
    monkeypatch.setitem(sys.modules, "chemprop", None)
    with pytest.raises(ImportError, match=r"morphoclip\[chemprop\]"):
        GraphEncoder()
