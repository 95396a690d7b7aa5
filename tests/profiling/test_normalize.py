from __future__ import annotations

import sys
from types import ModuleType

import hydra
import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from morphoclip import configs_dir
from morphoclip.profiling import Normalizer
from morphoclip.profiling.normalize import check_finite
from morphoclip.profiling.scale import shift_and_scale
from morphoclip.schema import split_columns

pytestmark = pytest.mark.filterwarnings("ignore:sphering:UserWarning")

CENTER = {"step": "center", "fit_on": "negcon", "by": "plate"}
MIXED = [
    {"step": "drop_low_variance", "fit_on": "all", "by": "all"},
    {"step": "sphere", "fit_on": "negcon", "by": "all"},
    {"step": "mad_robustize", "fit_on": "all", "by": "plate"},
    {"step": "coral", "fit_on": "negcon", "by": "batch"},
]
PRESETS = sorted(path.stem for path in (configs_dir() / "normalize").glob("*.yaml"))


def preset(name: str) -> Normalizer:
    return hydra.utils.instantiate(OmegaConf.load(configs_dir() / "normalize" / f"{name}.yaml"))


def test_all_published_presets_exist():
    assert {"kim2025", "tvn", "phenoseeker", "jump", "center", "none"} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_saving_and_new_plates(screen, name, tmp_path):
    """Fitted on two plates, saved, applied to the others: the same as transforming all in one go."""
    known = screen["Metadata_Batch"] == "B0"
    normalizer = preset(name).fit(screen[known])
    together = normalizer.transform(screen)
    normalizer.save(tmp_path / "normalizer.safetensors")
    loaded = Normalizer.load(tmp_path / "normalizer.safetensors")
    apart = pd.concat([loaded.transform(screen[known]), loaded.transform(screen[~known])])
    pd.testing.assert_frame_equal(apart, together, check_exact=False, rtol=1e-9, atol=1e-9)
    assert np.isfinite(together[split_columns(together)[1]].to_numpy()).all()
    assert list(tmp_path.iterdir()) == [tmp_path / "normalizer.safetensors"]


def test_steps_by_plate_give_a_new_plate_what_fitting_on_it_would(screen):
    new = screen["Metadata_Plate"] == "P3"
    late = Normalizer([CENTER]).fit(screen[~new]).transform(screen)
    pd.testing.assert_frame_equal(late, Normalizer([CENTER]).fit(screen).transform(screen))


def test_a_step_over_all_never_learns_from_tables_it_only_transforms(screen):
    new = screen["Metadata_Plate"] == "P3"
    normalizer = Normalizer([{"step": "center", "fit_on": "negcon", "by": "all"}]).fit(screen[~new])
    controls = screen[~new & (screen["Metadata_control_type"] == "negcon")]
    expected = screen.loc[new, ["f0", "f1"]] - controls[["f0", "f1"]].mean()
    pd.testing.assert_frame_equal(normalizer.transform(screen).loc[new, ["f0", "f1"]], expected)


def test_rows_limit_what_statistics_see(screen):
    training = (screen["Metadata_Well"].str[0] != "C").to_numpy()
    changed = screen.copy()
    changed.loc[~training, "f0"] += 1e3
    fitted = [Normalizer(MIXED).fit(table, rows=training).transform(screen) for table in (screen, changed)]
    pd.testing.assert_frame_equal(*fitted)


def test_transform_leaves_its_input_and_itself_alone(screen):
    normalizer = Normalizer(MIXED).fit(screen[screen["Metadata_Batch"] == "B0"])
    before = screen.copy()
    first = normalizer.transform(screen)
    pd.testing.assert_frame_equal(screen, before)
    pd.testing.assert_frame_equal(normalizer.transform(screen), first)


@pytest.mark.parametrize("steps", [[], MIXED])
def test_a_result_may_be_changed_without_harm_to_its_input(screen, steps):
    before = screen.copy()
    normalizer = Normalizer(steps)
    normalized = normalizer.fit_transform(screen)
    for table in [normalized, *(table for _, table in normalizer.after_each_step(screen))]:
        table.loc[:, "f0"] = 7.0
    pd.testing.assert_frame_equal(screen, before)


@pytest.mark.parametrize("order", ["C", "F"])
def test_tables_too_large_for_one_part_are_scaled_alike(order):
    x = np.asarray(np.random.default_rng(0).normal(size=(1500, 800)), order=order)
    location, scale = np.arange(800.0), np.arange(1, 801.0)
    ours = shift_and_scale(x, {"location": location, "scale": scale})
    np.testing.assert_array_equal(ours, (x - location) / scale)
    assert ours.flags.f_contiguous == x.flags.f_contiguous
    x[1499, 799] = np.nan
    with pytest.raises(ValueError, match="'799' is NaN"):
        check_finite(x, list(map(str, range(800))), pd.DataFrame(index=range(1500)))


def test_a_step_that_makes_nan_is_named(screen, monkeypatch):
    import morphoclip.profiling.steps.l2 as l2

    monkeypatch.setattr(l2, "apply", lambda x, *_, **__: np.where(x == x.max(), np.nan, x))
    with pytest.raises(ValueError, match="became NaN or infinite in step l2 on plate P"):
        Normalizer([{"step": "center", "fit_on": "all", "by": "plate"}, {"step": "l2"}]).fit_transform(screen)
    with pytest.raises(ValueError, match="in step l2"):  # a step in the middle is named, and not the one after it
        Normalizer([{"step": "l2"}, {"step": "center", "fit_on": "all", "by": "plate"}]).fit_transform(screen)


def test_row_order_plate_names_and_column_order_change_nothing(screen):
    reference = Normalizer(MIXED).fit_transform(screen)
    shuffled = screen.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(Normalizer(MIXED).fit_transform(shuffled).sort_index(), reference, rtol=1e-9)
    renamed = screen.assign(Metadata_Plate=screen["Metadata_Plate"].map({"P0": "9", "P1": "x", "P2": "10", "P3": "a"}))
    ours = Normalizer(MIXED).fit_transform(renamed)
    np.testing.assert_allclose(ours[["f0", "f3"]], reference[["f0", "f3"]], rtol=1e-9)
    turned = Normalizer(MIXED).fit(screen).transform(screen[screen.columns[::-1]])
    np.testing.assert_array_equal(turned[["f0", "f3"]], reference[["f0", "f3"]])


def test_float32_stays_float32_and_agrees(screen):
    names = split_columns(screen)[1]
    single = screen.astype(dict.fromkeys(names, np.float32))
    ours = Normalizer(MIXED).fit_transform(single)
    assert (ours[names].dtypes == np.float32).all()
    np.testing.assert_allclose(ours[names], Normalizer(MIXED).fit_transform(screen)[names], atol=1e-4)


def test_a_plate_id_may_look_like_a_number(screen, tmp_path):
    numeric = screen.assign(Metadata_Plate=screen["Metadata_Plate"].str[1:].astype(int))
    normalizer = Normalizer([CENTER]).fit(numeric)
    normalizer.save(tmp_path / "n")
    text = numeric.assign(Metadata_Plate=numeric["Metadata_Plate"].astype(str))
    np.testing.assert_array_equal(
        Normalizer.load(tmp_path / "n").transform(text)["f0"], normalizer.transform(numeric)["f0"]
    )


def test_a_users_own_module_is_a_step(screen, monkeypatch):
    module = ModuleType("their_step")
    module.fit = lambda x, power=1: {"top": x.max(0) ** power}
    module.apply = lambda x, state, **_: x - state["top"]
    package = ModuleType("theirs")
    monkeypatch.setitem(sys.modules, "theirs", package)
    monkeypatch.setitem(sys.modules, "theirs.their_step", module)
    step = {"step": "theirs.their_step", "fit_on": "all", "by": "plate", "power": 1}
    ours = Normalizer([step]).fit_transform(screen)
    np.testing.assert_allclose(ours.groupby("Metadata_Plate")[["f0", "f5"]].max(), 0)


def test_each_step_is_shown_as_if_it_were_the_last(screen):
    steps = [CENTER, {"step": "pca", "fit_on": "all", "by": "all", "n_components": 3}, {"step": "l2"}]
    stages = list(Normalizer(steps).after_each_step(screen))
    assert [name for name, _ in stages] == ["none", "center", "pca", "l2"]
    for i, (_, table) in enumerate(stages):
        pd.testing.assert_frame_equal(table, Normalizer(steps[:i]).fit_transform(screen))


def test_no_steps_warn_on_encoder_profiles_only(screen):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pd.testing.assert_frame_equal(Normalizer([]).fit_transform(screen), screen)
    with pytest.warns(UserWarning, match="center"):
        Normalizer([]).fit_transform(
            screen.rename(columns={"f0": "embedding_0000"})[["Metadata_Plate", "embedding_0000"]]
        )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"step": "spheer", "fit_on": "all", "by": "all"}], "unknown step 'spheer'.*use one of .*'sphere'"),
        ([{"fit_on": "all", "by": "all"}], "step ''"),
        ([{"step": "center"}], "needs fit_on"),
        ([{"step": "center", "fit_on": "poscon", "by": "all"}], "needs fit_on"),
        ([{"step": "center", "fit_on": "all", "by": "well"}], "needs fit_on"),
        ([{"step": "sphere", "fit_on": "all", "by": "all", "epsilon": 1}], r"no option \['epsilon'\].*'eps'"),
        ([{"step": "pca", "fit_on": "all", "by": "plate"}], "set by: all"),
        ([{"step": "sphere", "fit_on": "all", "by": "plate", "method": "PCA"}], "set by: all"),
    ],
)
def test_wrong_steps_are_refused_when_built(steps, message):
    with pytest.raises(ValueError, match=message):
        Normalizer(steps)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_name_feature_plate_and_well(screen, value):
    screen.loc[30, "f2"] = value
    with pytest.raises(ValueError, match=r"'f2' is NaN or infinite on plate P1 well A07.*drop"):
        Normalizer([CENTER]).fit(screen)
    remedy = {
        "step": "feature_select",
        "fit_on": "all",
        "by": "all",
        "operations": ["drop_missing"],
        "missing_cutoff": 0,
    }
    assert "f2" not in Normalizer([remedy, CENTER]).fit_transform(screen)


def test_a_plate_without_negcon_is_named(screen):
    screen.loc[screen["Metadata_Plate"] == "P2", "Metadata_control_type"] = ""
    with pytest.raises(ValueError, match=r"plate P2 has no negcon wells.*fit_on: all"):
        Normalizer([CENTER]).fit(screen)
    fitted = Normalizer([CENTER]).fit(screen[screen["Metadata_Plate"] != "P2"])
    with pytest.raises(ValueError, match="plate P2 has no negcon wells"):
        fitted.transform(screen)


def test_a_constant_feature_is_named(screen):
    screen.loc[screen["Metadata_Plate"] == "P1", "f4"] = 0.1
    for step in ("mad_robustize", "center_scale"):
        with pytest.raises(ValueError, match=r"plate P1.*'f4'.*drop_low_variance"):
            Normalizer([{"step": step, "fit_on": "all", "by": "plate"}]).fit(screen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="Metadata_control_type"), "no Metadata_control_type"),
        (lambda t: t.drop(columns="Metadata_Plate"), "Metadata_Plate is missing"),
        (
            lambda t: t.assign(Metadata_Plate=t["Metadata_Plate"].replace("P1", "")),
            "Metadata_Plate is missing or blank",
        ),
        (lambda t: t.assign(f0="high"), "f0.*neither numeric"),
        (lambda t: t.iloc[:0], "without rows"),
    ],
)
def test_bad_tables_are_refused(screen, change, message):
    with pytest.raises(ValueError, match=message):
        Normalizer([CENTER]).fit(change(screen))


def test_other_features_than_fitted_on_are_refused(screen):
    normalizer = Normalizer([CENTER]).fit(screen)
    with pytest.raises(ValueError, match=r"lacks 1 fitted features \['f3'\] and has 1 others \['g'\]"):
        normalizer.transform(screen.rename(columns={"f3": "g"}))
    with pytest.raises(ValueError, match="not fitted"):
        Normalizer([CENTER]).transform(screen)


def test_files_that_are_no_normalizer_are_refused(tmp_path):
    from safetensors.numpy import save_file

    (tmp_path / "text").write_text("center")
    save_file({"a": np.zeros(2)}, tmp_path / "tensors")
    for name in ("text", "tensors"):
        with pytest.raises(ValueError, match=name):
            Normalizer.load(tmp_path / name)
    with pytest.raises(ValueError, match="not fitted"):
        Normalizer([CENTER]).save(tmp_path / "unfitted")


def test_a_step_that_leaves_nothing_says_so(screen):
    with pytest.raises(ValueError, match="'drop_low_variance' removes all features"):
        Normalizer([{"step": "drop_low_variance", "fit_on": "all", "by": "all", "threshold": 1e9}]).fit_transform(
            screen
        )
