"""Rotations: every treated well is asked once, by a model that saw neither its plate nor its compound."""

import numpy as np
import pandas as pd
import pytest

from morphoclip.data import schema
from morphoclip.evaluation.unseen import rotations, unseen_replicates, unseen_table

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
