"""Normalisation fitted on the controls it is scored against flatters shuffled labels; cross-fitted it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data.metadata.annotations import annotate
from morphoclip.evaluation import average_precision, expected_average_precision, score
from morphoclip.evaluation.card.alarms import shuffled_labels

SPHERE = [{"step": "sphere", "fit_on": "negcon", "by": "all", "method": "ZCA-cor"}]


def real_plates(cpjump1: Path) -> pd.DataFrame:
    paths = sorted((cpjump1 / "profiles").glob("*.csv.gz"))
    return annotate(pd.concat([pd.read_csv(p) for p in paths], ignore_index=True).copy(), cpjump1 / "metadata")


def pairs_of_controls(x: np.ndarray, plates: np.ndarray, asking: np.ndarray, against: np.ndarray, seed: int) -> float:
    """Mean AP of 8 pairs of controls a plate, of those `asking`, among 16 others of that plate that are `against`."""
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for plate in np.unique(plates):
        queries = rng.permutation(np.flatnonzero(asking & (plates == plate)))[:16]
        others = np.setdiff1d(np.flatnonzero(against & (plates == plate)), queries)
        rows += [*queries, *rng.permutation(others)[:16]]
        labels += [*(f"{plate}-{i // 2}" for i in range(16)), *["negative"] * 16]
    meta = pd.DataFrame({"label": labels, "plate": plates[rows]}).assign(negative=lambda t: t["label"] == "negative")
    table = average_precision(
        meta, x[rows], ["label"], [], ["plate"], ["negative"], queries=~meta["negative"].to_numpy()
    )
    return float(table["average_precision"].mean())


@pytest.mark.filterwarnings("ignore:sphering")
def test_controls_posing_as_treatments_are_at_chance_against_controls_the_fit_has_not_seen(cpjump1):
    """The direct proof of cross-fitting: alike wells, and only whether the sphering was fitted on the negatives differs."""
    from morphoclip.profiling import Normalizer, negcon_folds

    table = real_plates(cpjump1)
    plates, features = table[schema.PLATE].to_numpy(), schema.split_columns(table)[1]
    fold = negcon_folds(table)
    unseen, fitted = [], []
    for scored in (0, 1):
        marked = table.assign(**{schema.CONTROL_TYPE: table[schema.CONTROL_TYPE].mask(fold == scored, "held out")})
        x = Normalizer(SPHERE).fit_transform(marked)[features].to_numpy(np.float64)
        for seed in range(6):
            unseen.append(pairs_of_controls(x, plates, fold == scored, fold == scored, seed))
            fitted.append(pairs_of_controls(x, plates, fold == scored, fold == 1 - scored, seed))
    chance = float(expected_average_precision(np.array([1]), np.array([17]))[0])
    assert np.mean(unseen) == pytest.approx(chance, abs=0.03)
    assert np.mean(fitted) > chance + 0.1


@pytest.mark.filterwarnings("ignore:sphering")
def test_sphered_real_plates(cpjump1):
    from morphoclip.profiling import Normalizer, crossfit, negcon_folds

    table = real_plates(cpjump1)
    fold = negcon_folds(table)
    ways = {
        "plain": [Normalizer(SPHERE).fit_transform(table)],
        "crossfit": crossfit(SPHERE, table),
        "raw": [table[fold != 1 - k] for k in (0, 1)],  # not normalised, on the folds the cross-fit scores
    }
    quick = {"tasks": ["replicate"], "p_convention": "copairs", "null_size": 50, "bootstrap": 50, "shuffles": 5}
    cards = {way: score(folds, **quick) for way, folds in ways.items()}
    rows = {way: card.metrics.query("metric == 'shuffled_labels'").iloc[0] for way, card in cards.items()}
    plain, honest, raw = rows["plain"], rows["crossfit"], rows["raw"]
    assert plain["value"] > plain["chance"] + 0.15
    # treated wells of real plates differ from DMSO as a class, so shuffled labels exceed chance without any sphering
    assert honest["ci_low"] < raw["value"] + 0.005
    assert honest["value"] < honest["chance"] + 0.05
    alarm = shuffled_labels(plain["value"], honest["value"], plain["chance"], honest["chance"])
    assert alarm is not None
    assert "crossfit=true" in alarm
    assert shuffled_labels(honest["value"], honest["value"], honest["chance"], honest["chance"]) is None
    assert cards["plain"].value("replicate") > cards["crossfit"].value("replicate") + 0.05
    assert (table[schema.CONTROL_TYPE] == schema.NEGCON).sum() == 192
