"""Profiles without information: on the same wells, whatever their order, at chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol
from morphoclip.experiment.random_baseline import random_arm
from morphoclip.experiment.score import Arm, Scoring, preset, score_arms


def test_gaussian_and_shuffled_profiles_score_lower_than_the_real_ones(make_screen):
    table = make_screen(0, signal=3.0).query("Metadata_modality == 'compound'").reset_index(drop=True)
    arm = Arm(table, preset("none"))
    arms = {"profiles": arm, "gaussian": random_arm(arm, "gaussian"), "shuffled": random_arm(arm, "shuffled")}
    quick = Scoring(Protocol(), ["replicate", "neighbours"], crossfit=False, null_size=50)
    cards = {name: scored.card for name, scored in score_arms(arms, quick).items()}
    chance = float(cards["gaussian"].tables["replicate"]["chance"].mean())
    assert cards["profiles"].value("replicate") > 0.8
    assert cards["gaussian"].value("replicate") == pytest.approx(chance, abs=0.08)
    assert cards["shuffled"].value("replicate") < 0.5


def test_shuffling_keeps_controls_and_each_plates_profiles(make_screen):
    table = make_screen(0).query("Metadata_modality == 'compound'").reset_index(drop=True)
    shuffled = random_arm(Arm(table, preset("none")), "shuffled").table
    features = schema.split_columns(table)[1]
    controls = schema.is_negcon(table)
    pd.testing.assert_frame_equal(shuffled[controls], table[controls])
    for plate, part in table.groupby(schema.PLATE):
        ours = shuffled[shuffled[schema.PLATE] == plate]
        np.testing.assert_array_equal(np.sort(ours["f0"]), np.sort(part["f0"]))
    moved = (shuffled[features] != table[features]).any(axis=1)
    assert moved[~controls].mean() > 0.8


@pytest.mark.parametrize("kind", ["gaussian", "shuffled"])
def test_row_order_does_not_matter(make_screen, kind):
    table = make_screen(0).query("Metadata_modality == 'compound'").reset_index(drop=True)
    key = [schema.PLATE, schema.WELL]
    one = random_arm(Arm(table, preset("none")), kind, seed=3).table
    other = random_arm(Arm(table.sample(frac=1, random_state=0), preset("none")), kind, seed=3).table
    pd.testing.assert_frame_equal(one.sort_values(key, ignore_index=True), other.sort_values(key, ignore_index=True))


def test_another_kind_is_refused(make_screen):
    with pytest.raises(ValueError, match="baseline='uniform': give gaussian or shuffled"):
        random_arm(Arm(make_screen(0), preset("none")), "uniform")
