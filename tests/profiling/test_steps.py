"""Each step against pycytominer, scikit-learn or its closed form."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from pycytominer import feature_select as pycytominer_select
from pycytominer.operations.transform import InverseNormalTransform, RobustMAD, Spherize
from sklearn.preprocessing import StandardScaler

from morphoclip.profiling import Normalizer
from morphoclip.schema import split_columns

pytestmark = pytest.mark.filterwarnings("ignore:sphering:UserWarning")


def normalized(table: pd.DataFrame, *steps: dict) -> pd.DataFrame:
    out = Normalizer(steps).fit(table).transform(table)
    return out[split_columns(out)[1]]


def features(table: pd.DataFrame) -> pd.DataFrame:
    return table[split_columns(table)[1]]


def negcon(table: pd.DataFrame) -> pd.Series:
    return table["Metadata_control_type"] == "negcon"


def by_plate(table: pd.DataFrame, scaler) -> pd.DataFrame:
    """The oracle fitted on each plate's negative controls and applied to that plate."""
    parts = []
    for _, plate in table.groupby("Metadata_Plate", sort=False):
        scaled = scaler.fit(features(plate[negcon(plate)])).transform(features(plate))
        parts.append(pd.DataFrame(scaled, index=plate.index, columns=features(plate).columns))
    return pd.concat(parts)


def test_mad_robustize_equals_pycytominer(screen):
    ours = normalized(screen, {"step": "mad_robustize", "fit_on": "negcon", "by": "plate"})
    np.testing.assert_allclose(ours, by_plate(screen, RobustMAD()), atol=1e-10)


def test_mad_robustize_of_an_odd_number_of_wells(screen):
    odd = screen.iloc[:21]
    ours = normalized(odd, {"step": "mad_robustize", "fit_on": "all", "by": "all", "eps": 1e-18})
    np.testing.assert_allclose(ours, RobustMAD().fit(features(odd)).transform(features(odd)), atol=1e-10)


def test_mad_robustize_of_float32_profiles_with_many_features():
    """More values than one thread selects among at once, in the dtype of profile tables."""
    x = np.random.default_rng(0).normal(5, 2, (1501, 800)).astype(np.float32)
    table = pd.DataFrame(x, columns=[f"f{i}" for i in range(800)])
    ours = normalized(table, {"step": "mad_robustize", "fit_on": "all", "by": "all"}).to_numpy()
    deviation = np.abs(x - np.median(x, axis=0))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(
        ours, (x - np.median(x, axis=0)) / (1.4826 * np.median(deviation, axis=0)), rtol=1e-5, atol=1e-5
    )


def test_center_scale_equals_standardize(screen):
    ours = normalized(screen, {"step": "center_scale", "fit_on": "negcon", "by": "plate"})
    np.testing.assert_allclose(ours, by_plate(screen, StandardScaler()), atol=1e-10)


def test_center_leaves_each_plates_controls_at_the_origin(screen):
    ours = normalized(screen, {"step": "center", "fit_on": "negcon", "by": "plate"})
    means = ours[negcon(screen)].groupby(screen["Metadata_Plate"][negcon(screen)]).mean()
    np.testing.assert_allclose(means, 0, atol=1e-12)
    np.testing.assert_allclose(ours.diff().iloc[1:24], features(screen).diff().iloc[1:24], atol=1e-12)


@pytest.mark.parametrize("method", ["ZCA", "ZCA-cor", "PCA", "PCA-cor"])
@pytest.mark.parametrize("wells", ["more wells than features", "fewer wells than features"])
def test_sphere_equals_pycytominer_on_real_plates(real_plates, method, wells):
    table = real_plates
    if wells == "more wells than features":
        table = table[[*split_columns(table)[0], *split_columns(table)[1][:60]]]
    oracle = Spherize(method=method).fit(features(table[negcon(table)])).transform(features(table)).to_numpy()
    ours = normalized(table, {"step": "sphere", "fit_on": "negcon", "by": "all", "method": method}).to_numpy()
    if method.startswith("PCA"):  # an axis has no sign, and where nothing varies no direction
        oracle = oracle[:, : ours.shape[1]]
        oracle = oracle * np.sign((oracle * ours).sum(0))
    np.testing.assert_allclose(ours, oracle, atol=1e-5)


@pytest.mark.parametrize("method", ["ZCA", "ZCA-cor", "PCA", "PCA-cor"])
def test_sphered_controls_have_unit_covariance(screen, method):
    step = {"step": "sphere", "fit_on": "negcon", "by": "all", "method": method, "eps": 0.0}
    ours = normalized(screen, step)[negcon(screen)]
    np.testing.assert_allclose(np.cov(ours.T), np.eye(6), atol=1e-8)


@pytest.mark.parametrize("wells", [24, 4])
def test_shrinkage_whitens_the_shrunk_covariance(screen, wells):
    """W (C shrunk) W = I in all directions, also those the controls do not span."""
    table = screen.iloc[:wells].assign(Metadata_control_type="negcon")
    x = features(table).to_numpy()
    step = {"step": "sphere", "fit_on": "all", "by": "all", "method": "ZCA", "eps": 0.0, "shrinkage": 0.3}
    normalizer = Normalizer([step]).fit(table)
    matrix = normalizer.states[0]["all"]["matrix"]
    covariance = np.cov(x.T)
    shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / 6 * np.eye(6)
    np.testing.assert_allclose(matrix @ shrunk @ matrix, np.eye(6), atol=1e-8)


def test_sphere_warns_when_wells_are_few(screen):
    step = {"step": "sphere", "fit_on": "negcon", "by": "plate"}
    with pytest.warns(UserWarning, match=r"6 features on 8 wells is unstable \(1\.33 wells per feature"):
        Normalizer([step]).fit(screen)


def test_inverse_normal_equals_pycytominer(real_plates):
    table = real_plates[split_columns(real_plates)[0] + split_columns(real_plates)[1][:80]]
    ours = normalized(table, {"step": "inverse_normal", "fit_on": "all", "by": "all"})
    np.testing.assert_allclose(
        ours, InverseNormalTransform().fit(features(table)).transform(features(table)), atol=1e-5
    )


def test_inverse_normal_of_ties_and_of_values_beyond_the_reference():
    table = pd.DataFrame({"Metadata_control_type": ["negcon"] * 6 + [""] * 2, "f": [0, 1, 1, 1, 2, 3, -9, 9.0]})
    oracle = InverseNormalTransform().fit(table[["f"]][:6]).transform(table[["f"]])
    ours = normalized(table, {"step": "inverse_normal", "fit_on": "negcon", "by": "all"})
    np.testing.assert_allclose(ours, oracle, atol=1e-5)


OPERATIONS = {
    "drop_missing": {"missing_cutoff": 0.0},
    "variance_threshold": {"min_variance": 1.5},
    "frequency_threshold": {"freq_cut": 0.5, "unique_cut": 0.3},
    "correlation_threshold": {"corr_threshold": 0.6},
    "drop_outliers": {"outlier_cutoff": 12.0},
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_feature_select_equals_pycytominer(real_plates, operation):
    metadata, names = split_columns(real_plates)
    table = real_plates[metadata + names[::6]].copy()
    table[names[0]] = table[names[0]].where(table.index % 9 > 0)
    table[names[6]] = table[names[6]].round(0)
    if operation != "drop_missing":
        table = table.drop(columns=names[0])
    options = OPERATIONS[operation]
    ours = normalized(
        table, {"step": "feature_select", "fit_on": "all", "by": "all", "operations": [operation], **options}
    )
    theirs = {"missing_cutoff": "na_cutoff"}
    oracle = pycytominer_select(
        table,
        features=split_columns(table)[1],
        operation="drop_na_columns" if operation == "drop_missing" else operation,
        **{theirs.get(k, k): v for k, v in options.items()},
    )
    assert 0 < len(ours.columns) < len(split_columns(table)[1])
    assert list(ours.columns) == split_columns(oracle)[1]


def test_drop_low_variance(screen):
    table = screen.assign(flat=1.0, f2=screen["f2"] * 1e-4)
    kept = normalized(table, {"step": "drop_low_variance", "fit_on": "all", "by": "all"})
    assert list(kept.columns) == ["f0", "f1", "f3", "f4", "f5"]


def test_pca_keeps_distances_and_orders_variance(screen):
    ours = normalized(screen, {"step": "pca", "fit_on": "all", "by": "all"}).to_numpy()
    x = features(screen).to_numpy()
    np.testing.assert_allclose(np.linalg.norm(ours[3] - ours[50]), np.linalg.norm(x[3] - x[50]))
    np.testing.assert_allclose(ours.var(0), np.sort(np.linalg.eigvalsh(np.cov(x.T, bias=True)))[::-1])
    share = normalized(screen, {"step": "pca", "fit_on": "all", "by": "all", "n_components": 0.8})
    explained = ours.var(0).cumsum() / ours.var(0).sum()
    assert share.shape[1] == 1 + (explained < 0.8).sum()
    assert normalized(screen, {"step": "pca", "fit_on": "all", "by": "all", "n_components": 2}).columns.tolist() == [
        "PC1",
        "PC2",
    ]


def test_coral_gives_every_group_the_pooled_mean_and_covariance(screen):
    step = {"step": "coral", "fit_on": "negcon", "by": "plate", "eps": 0.0}
    controls = negcon(screen)
    ours, pooled = normalized(screen, step)[controls], features(screen)[controls]
    for _, plate in ours.groupby(screen["Metadata_Plate"][controls]):
        np.testing.assert_allclose(plate.mean(), pooled.mean(), atol=1e-8)
        np.testing.assert_allclose(np.cov(plate.T), np.cov(pooled.T), rtol=1e-6, atol=1e-8)


def test_tvn_is_its_four_steps(screen):
    """EFAAR's recipe, spelled out with numpy."""
    ours = normalized(screen, {"step": "tvn", "fit_on": "negcon", "by": "batch"}).to_numpy()
    controls, batch = negcon(screen).to_numpy(), screen["Metadata_Batch"].to_numpy()
    x = features(screen).to_numpy()
    x = (x - x[controls].mean(0)) / x[controls].std(0)
    x = (x - x[controls].mean(0)) @ np.linalg.svd(x[controls] - x[controls].mean(0))[2].T
    for b in ("B0", "B1"):
        reference = x[controls & (batch == b)]
        x[batch == b] = (x[batch == b] - reference.mean(0)) / reference.std(0)

    def power(covariance, exponent):
        values, vectors = np.linalg.eigh(covariance + 0.5 * np.eye(6))
        return vectors * values**exponent @ vectors.T

    target = power(np.cov(x[controls].T), 0.5)
    for b in ("B0", "B1"):
        x[batch == b] = x[batch == b] @ power(np.cov(x[controls & (batch == b)].T), -0.5) @ target
    np.testing.assert_allclose(np.abs(ours), np.abs(x), atol=1e-8)


def test_l2_gives_unit_profiles_and_refuses_empty_ones(screen):
    np.testing.assert_allclose(np.linalg.norm(normalized(screen, {"step": "l2"}), axis=1), 1)
    screen.loc[5, ["f0", "f1", "f2", "f3", "f4", "f5"]] = 0.0
    with pytest.raises(ValueError, match="all zero"):
        normalized(screen, {"step": "l2"})


def test_harmony_mixes_batches_within_kinds_of_wells(screen):
    generator = np.random.default_rng(0)
    kind, batch = generator.integers(0, 4, 300), np.arange(300) % 3
    x = (
        generator.normal(size=(300, 10))
        + 4 * generator.normal(size=(4, 10))[kind]
        + generator.normal(size=(3, 10))[batch]
    )
    table = pd.DataFrame(x, columns=[f"f{i}" for i in range(10)])
    table.insert(0, "Metadata_Batch", [f"B{b}" for b in batch])
    step = {"step": "harmony", "by": "batch"}
    ours = normalized(table, step).to_numpy()

    def spread(y: np.ndarray) -> float:
        means = [[y[(batch == b) & (kind == k)].mean(0) for b in range(3)] for k in range(4)]
        return float(np.var(means, axis=1).sum())

    assert spread(ours) < 0.1 * spread(x)
    kinds = np.array([ours[kind == k].mean(0) for k in range(4)])
    assert np.linalg.norm(kinds[0] - kinds[1]) > 5  # and keeps them apart
    np.testing.assert_array_equal(ours, normalized(table, step))
    with pytest.raises(ValueError, match="at least two groups"):
        normalized(table[batch == 0], step)
    with pytest.raises(ValueError, match="groups to mix"):
        Normalizer([{"step": "harmony"}])


def test_harmony_says_what_to_install(screen, monkeypatch):
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    with pytest.raises(ImportError, match="uv sync --extra harmony"):
        normalized(screen, {"step": "harmony", "by": "plate"})


def test_percentile_scale_puts_the_controls_percentiles_at_0_and_1(screen):
    ours = normalized(screen, {"step": "percentile_scale", "fit_on": "negcon", "by": "plate"})
    for _, plate in screen.groupby("Metadata_Plate"):
        controls = features(plate[negcon(plate)])
        low, high = controls.quantile(0.01), controls.quantile(0.99)
        np.testing.assert_allclose(ours.loc[plate.index], (features(plate) - low) / (high - low), rtol=1e-9, atol=1e-12)
    wide = {"step": "percentile_scale", "fit_on": "all", "by": "all", "low": 25, "high": 75}
    quarters = normalized(screen, wide).quantile([0.25, 0.75])
    np.testing.assert_allclose(quarters, [[0] * 6, [1] * 6], atol=1e-12)
    with pytest.raises(ValueError, match=r"low=99, high=1"):
        normalized(screen, {**wide, "low": 99, "high": 1})
