"""The front holds what nothing beats; a pipeline refused in one set has no mean."""

from __future__ import annotations

import numpy as np
import pandas as pd

from morphoclip.experiment.pipelines.axes import Axes
from morphoclip.experiment.pipelines.results import VALUES, by_set, over_sets, pareto_front, remarks
from morphoclip.experiment.pipelines.scores import CHANCE, SCORES


def line(
    subset: str, order: list[str], signal: float, batch: float, refused: str = "", encoder: str = "a", **levels
) -> dict:
    def scores(signal: float, batch: float, chance: float) -> dict[str, float]:
        values = dict(zip(SCORES, (signal, signal / 2, batch, batch / 2), strict=True))
        return values | {f"{name}{CHANCE}": chance for name in SCORES}

    found = {"well": scores(signal, batch, 0.1)} | {name: scores(*value) for name, value in levels.items()}
    return {
        "set": [encoder, "wells", subset],
        "order": order,
        "scores": {} if refused else found,
        "refused": refused,
        "notes": [],
    }


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


def test_means_over_sets_and_their_front():
    lines = [
        line("x", ["l2"], 0.9, 0.5), line("y", ["l2"], 0.5, 0.3),
        line("x", ["mad"], 0.6, 0.6), line("y", ["mad"], 0.6, 0.6),
        line("x", ["pca"], 1.0, 0.1), line("y", ["pca"], 0, 0, refused="too narrow"),
    ]  # fmt: skip
    table = by_set(lines, Axes({}, {}, 1))
    assert len(table) == 6
    means = over_sets(table).set_index("pipeline")
    assert list(means.index) == ["wells: l2", "wells: mad", "wells: pca"]  # by signal, the refused one last
    assert means.loc["wells: l2", list(SCORES)].to_list() == [0.7, 0.35, 0.4, 0.2]
    assert means["on_front"].to_list() == [True, False, False]
    assert means.loc["wells: pca", VALUES].isna().all()
    assert means.loc["wells: pca", "refused"] == "in 1 of 2 sets, first: too narrow"
    assert remarks(lines) == ["1 order, e.g. pca: refused: too narrow"]


def test_levels_of_replicates_are_compared_above_their_chance():
    lines = [
        line("x", ["l2"], 0.7, 0.3, plate_mean=(0.8, 0.6, 0.6))
    ]  # .8 is half of what is above .6, .7 two thirds above .1
    means = over_sets(by_set(lines, Axes({}, {}, 1, ("well", "plate_mean")))).set_index("pipeline")
    assert list(means.index) == ["wells, well: l2", "wells, plate_mean: l2"]
    assert means["on_front"].to_list() == [True, True]  # by signal, and by a batch effect at chance
    lines = [line("x", ["l2"], 0.7, 0.1, plate_mean=(0.8, 0.6, 0.6))]
    means = over_sets(by_set(lines, Axes({}, {}, 1, ("well", "plate_mean"))))
    assert means["on_front"].to_list() == [True, False]


def test_a_row_a_pipeline_whatever_the_names():
    lines = [line("x", ["l2"], 0.7, 0.3, encoder=encoder) for encoder in ("a", "b")]
    table = over_sets(by_set(lines, Axes({}, {}, 1)))
    assert sorted(table["pipeline"]) == ["a, wells: l2", "b, wells: l2"]
    assert isinstance(table, pd.DataFrame)
    assert table["sets"].to_list() == [1, 1]
