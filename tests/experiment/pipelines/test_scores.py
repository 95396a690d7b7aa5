"""Signal and batch effect by the prepared scorer equal those of `average_precision` on the same profiles."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.experiment.pipelines import scores
from morphoclip.experiment.pipelines.replicates import Profiles
from morphoclip.experiment.pipelines.scores import SCORES, Scorer
from morphoclip.experiment.pipelines.walk import Walk
from tests.experiment.pipelines.screens import plain, well_by_well


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("poscon", ["poscon_cp", ""])
@pytest.mark.parametrize("ties", ["none", "some", "many"])
def test_scores_of_wells_equal_average_precision(wells, dtype, poscon, ties):
    one = wells(3, plate_effect=0.5, poscon=poscon)
    x = one.x.astype(dtype)
    if ties != "none":  # few distinct profiles: copies of rows are tied with each other for every query
        rows = np.random.default_rng(0).integers(0, 8 if ties == "many" else 60, len(x))
        x = x[rows]
    got, want = Scorer(Profiles.of(one, "well")).score(x), well_by_well(one, x)
    assert one.signal.sum() == (24 if poscon else 60)
    assert {name: got[name] for name in SCORES} == pytest.approx(want, abs=1e-6 if dtype == np.float32 else 1e-9)


def test_float32_changes_a_score_by_less_than_a_millionth(wells):
    one = wells(4, plate_effect=0.3)
    scorer = Scorer(Profiles.of(one, "well"))
    assert scorer.score(one.x.astype(np.float32)) == pytest.approx(scorer.score(one.x), abs=1e-6)


def test_scores_do_not_depend_on_the_size_of_blocks(wells, monkeypatch):
    one = wells(1)
    whole = Scorer(Profiles.of(one, "well")).score(one.x)
    monkeypatch.setattr(scores, "_BLOCK_BYTES", 3000)
    assert Scorer(Profiles.of(one, "well")).score(one.x) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("how", ["mean", "median"])
def test_consensus_replicates_are_averages_of_a_plates_wells_on_both_sides(wells, how):
    one = wells(2, crossfit=False)
    profiles = Profiles.of(one, f"plate_{how}")
    table = pd.concat([one.metadata, pd.DataFrame(one.x)], axis=1)
    consensus = (
        table[~one.negcon]
        .groupby([schema.PLATE, schema.PERTURBATION], as_index=False)
        .agg({schema.CONTROL_TYPE: "first", **dict.fromkeys(range(one.x.shape[1]), how)})
    )
    assert len(profiles.block) == len(consensus) + 3 * 5  # ten controls a plate, in pairs as positive controls are
    x = profiles.values(one.x)
    negative = x[profiles.negative]
    pairs = one.x[one.negcon].reshape(3, 5, 2, -1).mean(axis=2).reshape(15, -1)
    np.testing.assert_allclose(negative[np.lexsort(negative.T)], pairs[np.lexsort(pairs.T)])
    controls = pd.DataFrame({schema.PLATE: np.repeat(consensus[schema.PLATE].unique(), 5), schema.PERTURBATION: "DMSO"})
    meta = pd.concat([consensus[[schema.PLATE, schema.PERTURBATION]], controls], ignore_index=True)
    half = dict(zip(one.metadata[schema.PERTURBATION], one.half, strict=True))
    want = plain(
        meta,
        np.concatenate([consensus[range(one.x.shape[1])].to_numpy(), pairs]),
        meta[schema.PERTURBATION].str.startswith("pos").to_numpy(),
        meta[schema.PERTURBATION].map(half).to_numpy(),
        (meta[schema.PERTURBATION] == "DMSO").to_numpy(),
    )
    got = Scorer(profiles).score(one.x)
    assert {name: got[name] for name in SCORES} == pytest.approx(want, abs=1e-9)


def test_noise_scores_its_chance(wells):
    found = []
    scorer = Scorer(Profiles.of(wells(0), "well"))
    for seed in range(300):
        found.append(scorer.score(np.random.default_rng(seed).standard_normal((90, 12))))
    table = pd.DataFrame(found)
    for name in SCORES:
        gap = table[name] - table[f"{name}_chance"]
        assert abs(gap.mean()) < 4 * gap.std() / 300**0.5


def test_a_level_without_replicates_is_refused_by_set(wells, axes):
    no_batches = r"set compound_U2OS_24, sweep\.replicates=batch_mean: fewer than two values of Metadata_Batch"
    with pytest.raises(ValueError, match=no_batches):
        Walk(wells(0), axes(1, replicates=("well", "batch_mean")))


def test_profiles_that_cannot_be_compared_are_named(wells):
    one = wells(0)
    x = one.x.copy()
    x[7] = 0
    with pytest.raises(ValueError, match="1 profiles hold only zeros, the first are 24h0 B02"):
        Scorer(Profiles.of(one, "well")).score(x)
    for scale in (1e-200, 1e200):
        scores_of = Scorer(Profiles.of(one, "well")).score
        assert scores_of(one.x * scale) == pytest.approx(scores_of(one.x))
