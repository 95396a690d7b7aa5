"""Shared steps give what separate pipelines give, and a pipeline that fails is a row with its reason."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.experiment.pipelines import walk
from morphoclip.experiment.pipelines.axes import Axes
from morphoclip.experiment.pipelines.scores import SCORES
from morphoclip.experiment.pipelines.walk import Walk
from morphoclip.profiling import Normalizer
from tests.experiment.pipelines.screens import STEPS, well_by_well


@pytest.mark.filterwarnings("ignore:pca keeps")
def test_every_order_scores_as_its_normalizer_and_average_precision_alone(wells, axes):
    one, two = wells(5), axes(2)
    table = pd.concat([one.metadata, pd.DataFrame(one.x, columns=one.names)], axis=1)
    lines = list(Walk(one, two).results(two.orders()))
    assert len(lines) == 37
    for line in lines:
        normalized = Normalizer([STEPS[name] for name in line["order"]]).fit_transform(table)
        want = well_by_well(one, normalized[schema.split_columns(normalized)[1]].to_numpy())
        assert {name: line["scores"]["well"][name] for name in SCORES} == pytest.approx(want, abs=1e-6), line["order"]


def test_a_shared_step_is_applied_once(wells, axes, monkeypatch):
    applied = []
    monkeypatch.setattr(walk, "applied", lambda step, metadata, x, names: (applied.append(step.name), (x, names))[1])
    three = axes(3, "center", "mad", "l2")
    list(Walk(wells(0), three).results(three.orders()))
    assert len(applied) == len(three.orders()) - 1  # the empty order has none


def test_a_refused_step_is_a_row_with_its_reason_and_so_is_what_comes_after_it(wells):
    steps = {"cut": STEPS["pca"] | {"n_components": 21, "when_fewer": "refuse"}, "l2": STEPS["l2"]}
    lines = {
        tuple(line["order"]): line for line in Walk(wells(0), Axes.of(steps, 2)).results(Axes.of(steps, 2).orders())
    }
    assert [order for order in lines if lines[order]["refused"]] == [("cut",), ("cut", "l2"), ("l2", "cut")]
    assert (
        "after 0 steps, cut: step 'pca', the whole table: pca: n_components=21, but 90" in lines["cut", "l2"]["refused"]
    )
    assert lines["cut",]["scores"] == {}


def test_a_step_of_ones_own_that_fails_is_a_row_too(wells, tmp_path, monkeypatch):
    lab = tmp_path / "failing_lab"
    lab.mkdir()
    (lab / "nan.py").write_text("def apply(x, state):\n    x = x.copy()\n    x[4, 2] = float('nan')\n    return x\n")
    (lab / "key.py").write_text("def apply(x, state):\n    raise KeyError('its own')\n")
    monkeypatch.syspath_prepend(tmp_path)
    axes = Axes.of({name: {"step": f"failing_lab.{name}"} for name in ("nan", "key")} | {"l2": STEPS["l2"]}, 2)
    refused = {tuple(line["order"]): line["refused"] for line in Walk(wells(0), axes).results(axes.orders())}
    assert refused["key",] == "after 0 steps, key: KeyError: 'its own'"
    assert refused["nan",] == "1 profiles hold NaN, the first are 24h0 A05: drop or impute these wells or features"
    assert refused["nan", "l2"].startswith("after 1 steps, l2: ") or "NaN" in refused["nan", "l2"]
    assert refused["l2",] == refused[()] == ""


def test_narrow_tables_keep_all_components_with_a_note(wells, axes):
    narrow = wells(0, features=6)
    one = axes(2, "pca", "l2")
    lines = {tuple(line["order"]): line for line in Walk(narrow, one).results(one.orders())}
    assert not any(line["refused"] for line in lines.values())
    note = "pca: pca keeps 6 components instead of 128: the wells span no more"
    assert {order for order, line in lines.items() if line["notes"] == [note]} == {o for o in lines if "pca" in o}
    whole = lines[()]["scores"]["well"]
    assert lines["pca",]["scores"]["well"] != whole  # centred
    assert np.isfinite(list(lines["pca",]["scores"]["well"].values())).all()
