"""Rotations: every treated well is asked once, by a model that saw neither its plate nor its compound."""

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation.tasks.unseen import rotations, unseen_replicates, unseen_table
from morphoclip.evaluation.tasks.unseen_controls import STRUCTURE, same_position_dmso, unseen_sisters

KEYS = {"a": "A", "a2": "A", "b": "B", "c": "C", "d": "D", "e": "E", "f": "F"}  # a and a2 are one structure


@pytest.fixture
def wells():
    rows = [
        (plate, f"{row}{column:02d}", perturbation)
        for plate in ("P1", "P2", "P3")
        for row, members in {"A": list(KEYS), "B": ["DMSO"] * 4}.items()
        for column, perturbation in enumerate(members, 1)
    ]
    table = pd.DataFrame(rows, columns=[schema.PLATE, schema.WELL, schema.PERTURBATION])
    return table.assign(**{schema.CONTROL_TYPE: np.where(table[schema.PERTURBATION] == "DMSO", "negcon", "")})


@pytest.fixture
def keys(wells):
    return wells[schema.PERTURBATION].map(lambda name: KEYS.get(name, name))


def test_nothing_asked_was_trained_on(wells, keys):
    turns = rotations(wells, keys, 3)
    assert len(turns) == 9
    asked = np.zeros(len(wells), int)
    for turn in turns:
        asked += turn.queries
        training, queries = wells[turn.training], wells[turn.queries]
        assert turn.plate not in set(training[schema.PLATE])
        assert set(queries[schema.PLATE]) <= {turn.plate}
        assert not set(keys[turn.training]) & set(keys[turn.queries])
        assert "DMSO" in set(training[schema.PERTURBATION])
    treated = wells[schema.CONTROL_TYPE] != "negcon"
    assert (asked[treated] == 1).all()
    assert (asked[~treated] == 0).all()


def test_shares_follow_from_the_key_and_not_from_the_order(wells, keys):
    order = np.random.default_rng(0).permutation(len(wells))
    for one, other in zip(rotations(wells, keys, 3), rotations(wells.iloc[order], keys.iloc[order], 3), strict=True):
        assert np.array_equal(one.queries[order], other.queries)
    assert any(
        not np.array_equal(one.queries, other.queries)
        for one, other in zip(rotations(wells, keys, 3), rotations(wells, keys, 3, seed=1), strict=True)
    )
    with pytest.raises(ValueError, match="1 plates and 3 folds"):
        rotations(wells[wells[schema.PLATE] == "P1"], keys[:11], 3)


def profiles(wells, strength):
    rng = np.random.default_rng(0)
    effect = {name: rng.normal(size=12) for name in sorted(KEYS)} | {"DMSO": np.zeros(12)}
    values = np.stack([strength * effect[name] for name in wells[schema.PERTURBATION]]) + rng.normal(
        size=(len(wells), 12)
    )
    return pd.concat([wells, pd.DataFrame(values, columns=[f"x{i}" for i in range(12)])], axis=1)


def test_a_planted_effect_is_found_and_noise_is_chance(wells, keys):
    turns = rotations(wells, keys, 3)
    strong, noise = (
        pd.concat([unseen_replicates([profiles(wells, strength)], wells, turn) for turn in turns])
        for strength in (8, 0)
    )
    assert len(strong) == 21  # seven compounds on three plates
    assert strong["average_precision"].mean() > 0.98
    assert noise["average_precision"].mean() == pytest.approx(noise["chance"].mean(), abs=0.15)
    table = unseen_table({"raw": [noise], "model": [strong, strong]}, wells, keys).set_index("arm")
    assert table.loc["model", "minus raw"] == pytest.approx(
        strong["average_precision"].mean() - noise["average_precision"].mean()
    )
    assert table.loc["model", "minus raw low"] > 0 > table.loc["raw", "minus model high"]
    assert table.loc["model", "n_seeds"] == 2
    assert table.loc["model", "n_compounds"] == 7


def test_positives_lie_on_other_plates_and_negatives_on_the_querys_own(wells, keys):
    """Wells of other plates are copies of the query where they share its compound; the own plate's controls are not."""
    turn = rotations(wells, keys, 3)[0]
    table = profiles(wells, 0)
    asked = wells.index[turn.queries][0]
    features = [c for c in table if c.startswith("x")]
    same = (wells[schema.PERTURBATION] == wells[schema.PERTURBATION][asked]) & (wells[schema.PLATE] != turn.plate)
    table.loc[same, features] = table.loc[asked, features].to_numpy()
    controls_elsewhere = (wells[schema.CONTROL_TYPE] == "negcon") & (wells[schema.PLATE] != turn.plate)
    table.loc[controls_elsewhere, features] = 1.1 * table.loc[asked, features].to_numpy(float)
    scored = unseen_replicates([table], wells, turn).set_index(schema.WELL)
    assert scored.loc[wells[schema.WELL][asked], "average_precision"] == 1.0


def test_shuffled_labels_score_what_treatment_alone_does(wells, keys):
    """All compounds do the same thing: labels say nothing, and the control finds that out."""
    table = profiles(wells, 0)
    treated = (wells[schema.CONTROL_TYPE] != "negcon").to_numpy()
    table.loc[treated, "x0"] += 50
    turns = rotations(wells, keys, 3)
    real, control = (
        pd.concat([unseen_replicates([table], wells, turn, shuffle=shuffle) for turn in turns])[
            "average_precision"
        ].mean()
        for shuffle in (None, 0)
    )
    assert real == pytest.approx(control)
    strong = [unseen_replicates([profiles(wells, 8)], wells, turn, shuffle=0) for turn in turns]
    scored = pd.concat(strong)
    assert scored["average_precision"].mean() < 0.8
    assert sorted(scored[schema.PERTURBATION].unique()) == sorted(KEYS)


def test_position_alone_is_chance_without_a_layout_effect_and_found_with_one(wells, keys):
    turns = rotations(wells, keys, 3)
    table = profiles(wells, 8)
    features = [c for c in table if c.startswith("x")]
    pattern = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(sorted(set(wells[schema.WELL])))}
    placed = table.assign(**{f: table[f] for f in features})
    placed[features] = placed[features].to_numpy() + 9 * np.stack([pattern[w] for w in wells[schema.WELL]])
    without, with_layout = (
        pd.concat([same_position_dmso([one], wells, turn) for turn in turns]) for one in (table, placed)
    )
    assert set(without[schema.PERTURBATION]) == {f"DMSO at B{i:02d}" for i in range(1, 5)}
    assert with_layout["average_precision"].mean() == 1.0
    assert without["average_precision"].mean() == pytest.approx(without["chance"].mean(), abs=0.2)


def test_left_out_compounds_find_their_targets_sisters_beside_structure_alone(wells, keys):
    """a and c share a target and look alike; the structures of a and b are alike instead."""
    target = {"a": "T", "c": "T", "b": "U", "d": "U"}
    smiles = {"a": "CCO", "b": "CCCO", "c": "c1ccccc1", "d": "NC(=O)N", "a2": "CC", "e": "C#N", "f": "ClCl"}
    annotated = profiles(wells, 8).assign(
        **{
            schema.TARGETS: wells[schema.PERTURBATION].map(target).fillna(""),
            schema.SMILES: wells[schema.PERTURBATION].map(smiles).fillna("CS(=O)C"),
        }
    )
    features = [c for c in annotated if c.startswith("x")]
    like = (annotated[schema.PERTURBATION] == "c").to_numpy(), (annotated[schema.PERTURBATION] == "a").to_numpy()
    annotated.loc[like[0], features] = -annotated.loc[like[1], features].to_numpy()  # opposite counts as found
    turns = rotations(wells, keys, 3)
    rows = pd.concat([unseen_sisters([annotated], wells, turn, "model") for turn in turns])
    model, alone = (rows[rows["arm"] == arm].set_index(schema.PERTURBATION) for arm in ("model", STRUCTURE))
    assert sorted(model.index) == sorted(["a", "b", "c", "d"] * 3)
    assert (model.loc[["a", "c"], "average_precision"] == 1.0).all()
    assert (alone.loc["a", "average_precision"] < 1.0).all()
    assert unseen_sisters([annotated.assign(**{schema.TARGETS: ""})], wells, turns[0], "model").empty
