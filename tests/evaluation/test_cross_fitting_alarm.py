"""Normalisation fitted on the controls it is scored against flatters shuffled labels; cross-fitted it does not."""

from __future__ import annotations

import pandas as pd
import pytest

from morphoclip.data import schema
from morphoclip.data.annotations import annotate
from morphoclip.evaluation import score
from morphoclip.evaluation.alarms import shuffled_labels

SPHERE = [{"step": "sphere", "fit_on": "negcon", "by": "all", "method": "ZCA-cor"}]


@pytest.mark.filterwarnings("ignore:sphering")
def test_sphered_real_plates(cpjump1):
    from morphoclip.profiling import Normalizer, crossfit, negcon_folds

    paths = sorted((cpjump1 / "profiles").glob("*.csv.gz"))
    table = annotate(pd.concat([pd.read_csv(p) for p in paths], ignore_index=True), cpjump1 / "metadata")
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
