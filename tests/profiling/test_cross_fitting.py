from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip.profiling import Normalizer, crossfit, negcon_folds
from morphoclip.schema import split_columns

pytestmark = pytest.mark.filterwarnings("ignore:sphering:UserWarning")

SPHERE = [{"step": "sphere", "fit_on": "negcon", "by": "all"}]
CENTER = [{"step": "center", "fit_on": "negcon", "by": "plate"}]


def test_each_fold_is_scored_against_controls_it_was_not_fitted_on(screen):
    fold = negcon_folds(screen, seed=3)
    tables = crossfit(CENTER, screen, seed=3)
    for scored, table in enumerate(tables):
        controls = table["Metadata_control_type"] == "negcon"
        assert set(table.index[controls]) == set(screen.index[fold == scored])
        assert set(table.index[~controls]) == set(screen.index[fold == -1])
        fitted = screen[fold == 1 - scored].groupby("Metadata_Plate")[["f0", "f1"]].mean()
        expected = screen.loc[table.index, ["f0", "f1"]] - fitted.loc[table["Metadata_Plate"]].to_numpy()
        np.testing.assert_allclose(table[["f0", "f1"]], expected)
        pd.testing.assert_series_equal(table["Metadata_control_type"], screen.loc[table.index, "Metadata_control_type"])


def test_a_position_is_in_one_fold_on_all_plates_and_plates_are_halved(screen):
    controls = screen.assign(fold=negcon_folds(screen, seed=0))[screen["Metadata_control_type"] == "negcon"]
    assert (controls.groupby("Metadata_Well")["fold"].nunique() == 1).all()
    assert (controls.groupby("Metadata_Plate")["fold"].sum() == 4).all()


def test_plates_of_different_layouts_are_halved_too(screen):
    moved = screen["Metadata_Plate"].isin(["P1", "P2"]) & (screen["Metadata_control_type"] == "negcon")
    screen.loc[moved, "Metadata_Well"] = "H" + screen["Metadata_Well"].str[1:]
    controls = screen.assign(fold=negcon_folds(screen, seed=0))[screen["Metadata_control_type"] == "negcon"]
    assert (controls.groupby("Metadata_Plate")["fold"].sum() == 4).all()


def test_folds_depend_on_the_seed_and_on_positions_only(screen):
    fold = negcon_folds(screen, seed=0)
    shuffled = screen.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(negcon_folds(shuffled, seed=0), fold[shuffled.index])
    short = screen.assign(Metadata_Well=screen["Metadata_Well"].str.replace("0", "", regex=False))
    np.testing.assert_array_equal(negcon_folds(short, seed=0), fold)
    assert any((negcon_folds(screen, seed=s) != fold).any() for s in range(1, 5))


def test_steps_fitted_on_all_wells_need_no_cross_fitting(screen):
    steps = [{"step": "mad_robustize", "fit_on": "all", "by": "plate"}]
    (table,) = crossfit(steps, screen)
    pd.testing.assert_frame_equal(table, Normalizer(steps).fit_transform(screen))


def test_a_normalizer_is_refitted_and_left_alone(screen):
    normalizer = Normalizer(CENTER).fit(screen)
    before = normalizer.transform(screen)
    for ours, steps in zip(crossfit(normalizer, screen), crossfit(CENTER, screen), strict=True):
        pd.testing.assert_frame_equal(ours, steps)
    pd.testing.assert_frame_equal(normalizer.transform(screen), before)


def test_rows_limit_what_statistics_see(screen):
    training = (screen["Metadata_Plate"] != "P3").to_numpy()
    changed = screen.copy()
    changed.loc[~training, "f0"] += 1e3
    for a, b in zip(crossfit(SPHERE, screen, rows=training), crossfit(SPHERE, changed, rows=training), strict=True):
        known = a["Metadata_Plate"] != "P3"
        pd.testing.assert_frame_equal(a[known], b[known])


def test_a_plate_with_one_negcon_position_is_named(screen):
    alone = screen[(screen["Metadata_Plate"] != "P1") | (screen["Metadata_Well"] != "A01")]
    alone = alone[(alone["Metadata_Plate"] != "P1") | (~alone["Metadata_Well"].isin([f"A0{i}" for i in range(3, 9)]))]
    with pytest.raises(ValueError, match=r"plate P1 .*crossfit=false"):
        crossfit(CENTER, alone)
    with pytest.raises(ValueError, match="Metadata_Well"):
        crossfit(CENTER, screen.drop(columns="Metadata_Well"))


def test_cross_fitting_undoes_what_sphering_does_to_its_own_controls(real_plates):
    """Sphered on themselves 192 DMSO wells are all but orthogonal, the easiest negatives there are; unseen ones are not."""
    table = real_plates.assign(Metadata_control_type=real_plates["Metadata_control_type"].fillna(""))

    def control_cosine(profiles: pd.DataFrame) -> float:
        x = profiles.loc[profiles["Metadata_control_type"] == "negcon", split_columns(profiles)[1]].to_numpy()
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return float(np.abs((x @ x.T)[np.triu_indices(len(x), 1)]).mean())

    assert control_cosine(Normalizer(SPHERE).fit_transform(table)) < 0.01
    assert all(control_cosine(profiles) > 0.05 for profiles in crossfit(SPHERE, table))
