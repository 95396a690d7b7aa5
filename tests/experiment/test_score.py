"""Arms × design ▶ cards: one way to normalise, cross-fit and score, whoever trained on what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data.splits.rotation import rotations
from morphoclip.evaluation import Protocol, score
from morphoclip.experiment.design import FOLD, QUERY, SCORED, TRAINED, Design, holdout_design, rotation_design
from morphoclip.experiment.report import arm_table
from morphoclip.experiment.score import Arm, Scoring, normalized_folds, preset, score_arms
from morphoclip.profiling import Normalizer, crossfit

UNITS = {"a": "A", "a2": "A", "b": "B", "c": "C", "d": "D", "e": "E", "f": "F"}  # a and a2 are one structure
FEATURES = [f"x{i}" for i in range(12)]
APART = Protocol(set_by=(schema.MODALITY,), replicate_diffby=(schema.PLATE,))
NONE = Normalizer()


def scoring(**changes) -> Scoring:
    settings = {
        "protocol": APART,
        "tasks": ["replicate"],
        "crossfit": False,
        "p_convention": "copairs",
        "null_size": 100,
    }
    return Scoring(**(settings | changes))


@pytest.fixture
def wells() -> pd.DataFrame:
    """Three plates of seven compounds (row A) and four negative controls (row B)."""
    rows = [
        (plate, f"{row}{column:02d}", perturbation)
        for plate in ("P1", "P2", "P3")
        for row, members in {"A": list(UNITS), "B": ["DMSO"] * 4}.items()
        for column, perturbation in enumerate(members, 1)
    ]
    table = pd.DataFrame(rows, columns=[schema.PLATE, schema.WELL, schema.PERTURBATION])
    control = np.where(table[schema.PERTURBATION] == "DMSO", schema.NEGCON, "")
    return table.assign(**{schema.CONTROL_TYPE: control, schema.MODALITY: "compound"})


@pytest.fixture
def units(wells) -> pd.Series:
    return wells[schema.PERTURBATION].map(lambda name: UNITS.get(name, name))


@pytest.fixture
def rotation(wells, units) -> Design:
    return rotation_design(wells, units, {f"{t.plate}-{t.fold}": t for t in rotations(wells, units, 3)})


def profiles(wells: pd.DataFrame, strength: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    effect = {name: rng.normal(size=12) for name in sorted(UNITS)} | {"DMSO": np.zeros(12)}
    values = np.stack([strength * effect[name] for name in wells[schema.PERTURBATION]])
    values += rng.normal(size=values.shape)
    return pd.concat([wells, pd.DataFrame(values, columns=FEATURES)], axis=1)


def test_nobody_is_asked_what_its_model_was_trained_on(wells, rotation):
    roles = rotation.join(profiles(wells, 0))
    assert not (roles[QUERY] & roles[TRAINED]).any()
    asked = roles[roles[QUERY]]
    assert asked.groupby([schema.PLATE, schema.WELL]).size().eq(1).all()  # each treated well once
    assert len(asked) == 21
    assert roles.groupby(FOLD)[SCORED].all().all()


def test_out_of_fold_profiles_are_scored_once_for_all_models(wells, rotation):
    arms = {"raw": Arm(profiles(wells, 0), NONE), "model": Arm(profiles(wells, 8), NONE)}
    scored = score_arms(arms, scoring(), rotation)
    model, raw = (scored[name].card.tables["replicate"] for name in ("model", "raw"))
    assert len(model) == 21
    assert model["mean_average_precision"].mean() > 0.98
    assert raw["mean_average_precision"].mean() == pytest.approx(raw["chance"].mean(), abs=0.15)
    assert model["n_pos_pairs"].eq(2).all()  # the two other plates
    table = arm_table(scored, "model").set_index("arm")
    difference = model["mean_average_precision"].mean() - raw["mean_average_precision"].mean()
    assert table.loc["raw", "gain"] == pytest.approx(difference)
    assert table.loc["raw", "gain_low"] > 0
    assert model["cluster"].nunique() == 6  # a and a2 are one


def test_positives_lie_on_other_plates_and_negatives_on_the_querys_own(wells, rotation):
    """Wells of other plates are copies of the query where they share its compound; the own plate's controls are not."""
    table = profiles(wells, 0)
    query = table.index[(wells[schema.PLATE] == "P1") & (wells[schema.PERTURBATION] == "b")][0]
    elsewhere = wells[schema.PLATE] != "P1"
    table.loc[(wells[schema.PERTURBATION] == "b") & elsewhere, FEATURES] = table.loc[query, FEATURES].to_numpy()
    controls_elsewhere = (wells[schema.CONTROL_TYPE] == schema.NEGCON) & elsewhere
    table.loc[controls_elsewhere, FEATURES] = 1.1 * table.loc[query, FEATURES].to_numpy(float)
    queries = score_arms({"x": Arm(table, NONE)}, scoring(), rotation)["x"].card.queries["replicate"]
    found = queries[(queries[schema.PLATE] == "P1") & (queries[schema.PERTURBATION] == "b")]
    assert found["average_precision"].tolist() == [1.0]


def test_position_alone_is_chance_without_a_layout_effect_and_found_with_one(wells, rotation):
    table = profiles(wells, 8)
    pattern = {name: np.random.default_rng(i).normal(size=12) for i, name in enumerate(sorted(set(wells[schema.WELL])))}
    placed = table.copy()
    placed[FEATURES] = placed[FEATURES].to_numpy() + 9 * np.stack([pattern[w] for w in wells[schema.WELL]])
    scored = score_arms({"plain": Arm(table, NONE), "placed": Arm(placed, NONE)}, scoring(), rotation)
    table = arm_table(scored, "plain").set_index("arm")["same_position_dmso"]
    controls = scored["plain"].card.metrics.query("metric == 'same_position_dmso'")
    assert (controls["n"] == 4).all()  # the positions of the plate that is asked about, in each fold
    assert table["placed"] == 1.0
    assert table["plain"] == pytest.approx(controls["chance"].mean(), abs=0.2)


def test_left_out_compounds_find_sisters_among_all_compounds_of_their_plate(wells, rotation):
    """a and c share a target and look alike: wherever one is left out it finds the other, trained on or not."""
    target = {"a": "T", "c": "T", "b": "U", "d": "U"}
    table = profiles(wells, 8).assign(**{schema.TARGETS: wells[schema.PERTURBATION].map(target).fillna("")})
    like = [(table[schema.PERTURBATION] == name).to_numpy() for name in "ca"]
    table.loc[like[0], FEATURES] = -table.loc[like[1], FEATURES].to_numpy()  # opposite counts as found
    card = score_arms({"x": Arm(table, NONE)}, scoring(tasks=["replicate", "sister"]), rotation)["x"].card
    rows = card.tables["sister_ungated"]
    assert rows.loc[rows["Metadata_target"] == "T", "mean_average_precision"].eq(1.0).all()
    asked = rows["members"].str.split("|").explode().value_counts()
    assert asked[["a", "b", "c", "d"]].eq(3).all()  # once on each plate


def test_arms_have_as_many_controls_each(wells):
    """One arm's normalisation is fitted on controls and cross-fitted: the other is ranked against halves too."""
    table = profiles(wells, 4)
    center = Normalizer([{"step": "center", "fit_on": "negcon", "by": "plate"}])
    arms = {"none": Arm(table, NONE), "center": Arm(table, center)}
    scored = score_arms(arms, scoring(crossfit=True))
    chance = {name: result.card.tables["replicate"]["chance"].mean() for name, result in scored.items()}
    assert chance["none"] == pytest.approx(chance["center"])
    alone = score_arms({"none": arms["none"]}, scoring(crossfit=True))["none"]
    assert alone.card.tables["replicate"]["chance"].mean() < chance["none"]


def test_one_arm_without_a_design_is_the_plain_score(wells):
    table = profiles(wells, 2)
    center = preset("center")
    ours = score_arms({"x": Arm(table, center)}, scoring(crossfit=True, protocol=replace(APART, replicate_diffby=())))
    plain = score(crossfit(center, table), tasks=["replicate"], protocol=Protocol(set_by=(schema.MODALITY,)),
                  p_convention="copairs", null_size=100)  # fmt: skip
    pd.testing.assert_frame_equal(ours["x"].card.metrics, plain.metrics)


def test_statistics_come_from_training_wells(wells):
    table = profiles(wells, 4).assign(**{TRAINED: wells[schema.PLATE] != "P3"})
    spread = Normalizer([{"step": "center_scale", "fit_on": "all", "by": "all"}])
    (normalized,), _ = normalized_folds(table, spread, scoring())
    trained = normalized[TRAINED].to_numpy()
    np.testing.assert_allclose(normalized.loc[trained, FEATURES].mean(), 0, atol=1e-12)
    assert np.abs(normalized.loc[~trained, FEATURES].mean()).max() > 0.1


def test_a_holdout_asks_for_unseen_compounds_of_unseen_plates(wells):
    table = profiles(wells, 4).assign(
        **{schema.BATCH: np.where(wells[schema.PLATE] == "P3", "b2", "b1"), schema.GENE: "G", schema.NAME: ""},
        **{schema.INCHIKEY: ""},
    )
    design = holdout_design(table, {"batches": ["b2"], "fraction": 0.5}, ["gene"])
    scored = design.wells[design.wells[SCORED]]
    assert set(scored[schema.PLATE]) == {"P3"}
    asked = table.merge(scored, on=[schema.BATCH, schema.PLATE, schema.WELL])[schema.PERTURBATION]
    assert set(asked) - {"DMSO"} == set(UNITS) - design.seen
    assert "DMSO" in set(asked)


def test_a_form_of_a_trained_molecule_is_not_asked_where_it_is_on_unseen_plates_only(wells):
    """a2 is a tautomer of a, and only on the held-out plate."""
    smiles = {"a": "Oc1ccccn1", "a2": "O=c1cccc[nH]1"}
    unseen = (wells[schema.PLATE] == "P3").to_numpy()
    table = wells[unseen | (wells[schema.PERTURBATION] != "a2")].assign(
        **{schema.SMILES: wells[schema.PERTURBATION].map(smiles).fillna(""), schema.GENE: "G"}
    )
    table[schema.BATCH] = np.where(table[schema.PLATE] == "P3", "b2", "b1")
    trained = set()
    for seed in range(12):
        design = holdout_design(table, {"batches": ["b2"], "fraction": 0.5, "seed": seed}, [])
        scored = table.merge(design.wells[design.wells[SCORED]], on=design.keys)[schema.PERTURBATION]
        assert ("a" in design.seen) == ("a2" in design.seen) == ("a2" not in set(scored))
        trained.add("a" in design.seen)
    assert trained == {True, False}


def test_a_plate_held_out_by_name_is_queried_for_wells_that_no_plate_trained_on(wells):
    table = wells.assign(**{schema.BATCH: "b", schema.GENE: "", schema.NAME: wells[schema.PERTURBATION]})
    design = holdout_design(table, {"plates": ["P3"], "fraction": 0.5, "seed": 0}, [])
    roles, control = design.join(table), schema.is_negcon(table)
    held = set(table[schema.PERTURBATION]) - set(design.seen or ())
    assert len(held) in (3, 4)
    compound = table[schema.PERTURBATION].isin(held).to_numpy()
    plate = (table[schema.PLATE] == "P3").to_numpy()
    np.testing.assert_array_equal(roles[TRAINED], ~plate & ~compound)
    np.testing.assert_array_equal(roles[QUERY], plate & (compound | control))
    np.testing.assert_array_equal(roles[SCORED], compound | control)
    with pytest.raises(ValueError, match=r"held-out plates \['P9'\] are not in the fields"):
        holdout_design(table, {"plates": ["P9"]}, [])


def test_a_design_is_read_back_as_written(rotation, tmp_path):
    rotation.write(tmp_path, arms=["x"], given={}, main="x")
    again, about = Design.read(tmp_path)
    pd.testing.assert_frame_equal(again.wells, rotation.wells)
    assert about["main"] == "x"
    assert again.seen is None
    with pytest.raises(FileNotFoundError, match="finished training"):
        Design.read(tmp_path / "elsewhere")


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ValueError, match="kim2025"):
        preset("centre")


def test_where_normalisation_is_fitted_is_a_known_word():
    with pytest.raises(ValueError, match="choose set or table"):
        scoring(normalize_within="plates")
