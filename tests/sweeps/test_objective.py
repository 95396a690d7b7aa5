"""The objective of a run, from its curves or its scores."""

from __future__ import annotations

import pytest

from morphoclip.experiment.sweeps.objective import Objective, Score, shown_values


@pytest.fixture
def run(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/metrics.csv").write_text(
        "step,epoch,train/loss,val/knn\n1,0,4.0,\n2,0,3.0,0.5\n3,0,1.0,\n4,0,2.0,0.25\n5,0,9"  # the last row is cut off
    )
    (tmp_path / "metrics.csv").write_text(
        "task,subset,metric,value\n"
        "replicate,all,mean_average_precision,0.5\n"
        "replicate,plate 1,mean_average_precision,0.25\n"
        "sister,a,mean_average_precision,0.125\n"
        "sister,b,mean_average_precision,0.75\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("objective", "value"),
    [
        (Objective("train/loss", False), 2.0),
        (Objective("train/loss", False, "best"), 1.0),
        (Objective("val/knn", True, "best"), 0.5),
        (Objective("train/loss", False, "mean", 3), 2.0),
        (Objective("val/knn", True, "mean", 5), 0.375),
        (Objective(Score("replicate", "mean_average_precision"), True), 0.5),
        (Objective(Score("replicate", "mean_average_precision", "plate 1"), True), 0.25),
    ],
)
def test_an_objective_is_a_logged_value_or_a_score(run, objective, value):
    assert objective.value(run) == value


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("val/los", "was never logged in .*; logged are train/loss, val/knn"),
        (Score("sister", "mean_average_precision"), "2 rows, give objective.subset, for .*; it has sister, a, mean"),
        (Score("sister", "map"), "no row for sister, map; it has replicate, all"),
    ],
)
def test_what_a_run_has_not_is_named_with_what_it_has(run, what, said):
    with pytest.raises(LookupError, match=said):
        Objective(what, True).value(run)


def test_a_value_that_is_not_finite_is_no_objective(run):
    path = run / "logs/metrics.csv"
    path.write_text("step,train/loss\n1,nan\n")
    with pytest.raises(ValueError, match="the objective train/loss is nan"):
        Objective("train/loss", False).value(run)


def test_a_grid_shows_scores_and_last_values(run):
    assert shown_values(run) == {
        "replicate/mean_average_precision": 0.5,
        "sister/mean_average_precision": 0.125,
        "val/knn": 0.25,
        "train/loss": 2.0,
    }
