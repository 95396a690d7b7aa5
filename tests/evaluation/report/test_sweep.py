"""Sweeps of pipelines: shared work gives what separate work gives, and the front is the front."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation.report.sweep import (
    count_pipelines,
    pareto_front,
    signal_and_batch,
    sweep,
    write_sweep_report,
)

FEATURES = [f"f{i}" for i in range(24)]
STEPS = {"centre": {"by": "plate"}, "double": {"by": "all"}, "cube": {"by": "none"}}


def apply(table: pd.DataFrame, step) -> pd.DataFrame:
    table = table.copy()
    if step["by"] == "plate":
        fitted = table[table[schema.CONTROL_TYPE] == schema.NEGCON].groupby(schema.PLATE)[FEATURES].mean()
        table[FEATURES] = table[FEATURES].to_numpy() - fitted.loc[table[schema.PLATE]].to_numpy()
    elif step["by"] == "all":
        table[FEATURES] = 2 * table[FEATURES]
    else:
        table[FEATURES] = table[FEATURES] ** 3
    return table


@pytest.fixture(scope="module")
def wells(make_screen) -> pd.DataFrame:
    table = make_screen(0, signal=1.0)
    return table[table[schema.MODALITY] == "compound"].reset_index(drop=True)


def test_every_order_is_scored_as_if_alone(wells):
    result = sweep({"mean": wells}, STEPS, apply, depth=2).set_index("pipeline")
    orders = [order for n in range(3) for order in itertools.permutations(STEPS, n)]
    assert len(result) == len(orders) == count_pipelines(3, 2) == 10
    positions = sorted(set(wells.loc[wells[schema.CONTROL_TYPE] == schema.NEGCON, schema.WELL]))
    scored = wells[schema.WELL].map(lambda w: positions.index(w) % 2 == 1 if w in positions else True)
    for order in orders:
        table = wells.assign(
            **{
                schema.CONTROL_TYPE: wells[schema.CONTROL_TYPE].mask(
                    scored & (wells[schema.CONTROL_TYPE] == "negcon"), "other"
                )
            }
        )
        for name in order:
            table = apply(table, STEPS[name])
        table = table.assign(**{schema.CONTROL_TYPE: wells[schema.CONTROL_TYPE]})[scored]
        want = signal_and_batch(table, "poscon")
        row = result.loc["mean: " + (" > ".join(order) or "none")]
        assert {k: pytest.approx(v) for k, v in want.items()} == row[list(want)].to_dict()
    assert result["on_front"].any()


def test_the_front_holds_what_nothing_beats():
    rng = np.random.default_rng(0)
    signal, batch = rng.random(60).round(1), rng.random(60).round(1)
    front = pareto_front(signal, batch)
    for i in range(60):
        beaten = ((signal >= signal[i]) & (batch <= batch[i]) & ((signal > signal[i]) | (batch < batch[i]))).any()
        assert not (front[i] and beaten)
        if not beaten:  # of equals, one stands for all
            assert front[(signal == signal[i]) & (batch == batch[i])].sum() == 1
    assert not pareto_front(np.array([np.nan]), np.array([0.0])).any()


def test_a_pipeline_that_breaks_profiles_is_counted_not_scored(wells, tmp_path):
    def breaking(table, step):
        return table.assign(f3=np.inf) if step["by"] == "none" else apply(table, step)

    result = sweep({"mean": wells}, STEPS, breaking, depth=1)
    broken = result[result["pipeline"] == "mean: cube"].iloc[0]
    assert np.isnan(broken["chosen_signal"])
    assert not broken["on_front"]
    page = write_sweep_report(tmp_path / "sweep.html", result, "A sweep").read_text()
    assert "4 pipelines, 1 of which" in page
    assert page.count("<circle") == 3
