"""The parts of benchmarks.clip_quality that could flatter or hide a recipe: candidates, controls, the larger screen."""

import numpy as np
import pandas as pd
import torch

from benchmarks import unseen_retrieval as retrieval
from benchmarks.analogues import LargerScreen, canonical, larger_catalogue
from benchmarks.clip_quality import ARMS, ChannelFeatures, arm_config
from morphoclip import schema
from morphoclip.models.classical import ClassicalFeatures
from morphoclip.simulation import reagents

SMILES = {"a": "CCO", "b": "CCCO", "c": "c1ccccc1", "d": "Cc1ccccc1"}


def wells(profiles: dict[str, list[float]], plates=("P1", "P2")) -> pd.DataFrame:
    rows = [
        {
            schema.PLATE: plate,
            schema.WELL: f"A{i + 1:02d}",
            schema.PERTURBATION: name,
            schema.MODALITY: "compound",
            schema.CONTROL_TYPE: "negcon" if name.startswith("DMSO") else "",
            schema.GENE: name.upper(),
            schema.SMILES: SMILES.get(name, "CS(=O)C"),
            **{f"x{j}": value for j, value in enumerate(values)},
        }
        for plate in plates
        for i, (name, values) in enumerate(profiles.items())
    ]
    return pd.DataFrame(rows)


def test_a_larger_screen_has_distinct_compounds_and_the_simulator_is_left_as_it_was():
    before = [r.drug.smiles for r in reagents.compounds(LargerScreen())]
    with larger_catalogue(14):
        compounds = reagents.compounds(LargerScreen())
    assert (
        len(compounds)
        == len({canonical(r.drug.smiles) for r in compounds})
        == len({r.broad_sample for r in compounds})
        == 224
    )
    assert pd.Series([r.gene for r in compounds]).value_counts().eq(14).all()
    assert [r.drug.smiles for r in reagents.compounds(LargerScreen())] == before
    assert len(before) == 96


def test_an_unseen_structure_is_represented_by_the_nearest_one():
    seen = wells({"a": [1, 0, 0], "c": [0, 1, 0]})
    unseen = wells({"b": [0.9, 0.1, 0], "d": [0.1, 0.9, 0]})
    found = retrieval.nearest_structure(unseen, seen)
    assert found["R@1"].tolist() == [1.0, 1.0]
    assert found["chance@1"].tolist() == [0.5, 0.5]
    swapped = wells({"b": [0, 1, 0], "d": [1, 0, 0]})
    assert retrieval.nearest_structure(swapped, seen)["R@1"].tolist() == [0.0, 0.0]


def test_position_takes_the_control_beside_the_well_and_centring_its_plate():
    table = wells({"DMSO1": [1, 1, 1], "a": [5, 1, 1], "b": [1, 5, 1], "DMSO2": [3, 3, 3]})
    controls, treated = retrieval.controls_of(table), retrieval.compounds_of(table)
    beside = retrieval.nearest_controls(treated, controls)
    assert beside.set_index(schema.WELL).loc["A02", "x0"].tolist() == [1.0, 1.0]
    assert beside.set_index(schema.WELL).loc["A03", "x0"].tolist() == [3.0, 3.0]
    assert retrieval.centred(treated, controls)["x0"].tolist() == [3.0, -1.0] * 2


def test_a_model_that_knows_genes_finds_compounds_of_the_gene_alone():
    unseen = wells({"a": [0, 0, 0], "b": [0, 0, 0]}).assign(**{schema.GENE: "G"})
    assert retrieval.known_gene(unseen, {"a": "G", "b": "G"})["R@1"].tolist() == [0.5, 0.5]  # of two of the gene
    wrong = pd.concat([unseen, wells({"c": [0, 0, 0]})])
    found = retrieval.known_gene(wrong, {"a": "G", "b": "C", "c": "C"}).set_index(schema.PERTURBATION)
    assert found["R@1"].tolist() == [0.5, 0.0, 1.0]  # b acts on another gene than it is annotated with


def test_features_of_channels_hold_every_classical_feature_that_depends_on_the_channel(tmp_path):
    encoder, plain = ChannelFeatures(), ClassicalFeatures()
    x = torch.rand(2, 5, 64, 64, generator=torch.Generator().manual_seed(1))
    dealt, whole = encoder(x).unflatten(1, encoder.backbone.feature_shape), plain(x)
    assert encoder.backbone.feature_shape[1] % 8 == 0
    for channel in range(5):
        changed = x.clone()
        changed[:, channel] = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(2))
        moved = whole[:, (plain(changed) != whole).any(0)]
        assert all(torch.isclose(dealt[:, channel], column[:, None]).all(0).any() for column in moved.T)


def test_every_arm_composes_and_no_two_share_a_folder(tmp_path):
    runs = {
        arm_config(arm, seed, tmp_path, []).run_id
        for arm in ("cellclip", "cloome", "molphenix", "morphoclip")
        for seed in (0, 1)
    }
    assert len(runs) == 8
    assert len(ARMS) == 17
    assert np.isfinite(arm_config("morphoclip, S2L", 0, tmp_path, []).method.logit_bias)
