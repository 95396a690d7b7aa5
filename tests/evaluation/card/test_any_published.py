"""Published numbers of any kind, and those of ours that could be checked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip.evaluation import Protocol, ScoreCard, average_precision
from morphoclip.evaluation.card import published
from morphoclip.evaluation.card.published import beside_published
from morphoclip.evaluation.card.scorecard import METRIC_COLUMNS

NAMES = ("bbbc021", "jump_moa", "kim2025", "rxrx3_core")


def card(*rows: tuple) -> ScoreCard:
    return ScoreCard(pd.DataFrame(list(rows), columns=METRIC_COLUMNS), {}, {})


def test_numbers_stand_beside_ours_of_each_subset():
    nothing = float("nan")
    ours = card(
        ("relationships", "crispr_HUVEC", "recall_mean", 0.4321, nothing, nothing, 900, 0.1, ""),
        ("relationships", "crispr_HUVEC", "recall_CORUM", 0.5, nothing, nothing, 300, 0.1, ""),
        ("replicate", "crispr_HUVEC", "mean_average_precision", 0.5, nothing, nothing, 300, 0.1, "exact"),
    )
    table = beside_published(ours, "rxrx3_core", Protocol(), set())
    means = table[table["metric"] == "recall_mean"].set_index("method")
    assert means["published"].to_dict() == {"OpenPhenom": 0.3, "CellCLIP": 0.354, "CWA-MSN": 0.386}
    assert (means["ours"] == 0.432).all()
    assert (means["checked"] == "no").all()
    assert set(table["metric"]) == {"recall_mean", "recall_CORUM"}  # what we did not score is not listed
    assert beside_published(card(), "rxrx3_core", Protocol(), set()).empty


@pytest.mark.parametrize("name", NAMES)
def test_each_number_has_a_source_and_says_whether_it_was_checked(name):
    from pathlib import Path

    table = pd.read_csv(Path(published.__file__).with_name(f"published_{name}.csv"), dtype=str, keep_default_na=False)
    assert list(table.columns) == ["method", "task", "metric", "value", "source", "checked", "remark"]
    assert table["checked"].isin(["yes", "no"]).all()
    assert (table["source"] != "").all()
    assert table["value"].astype(float).between(0, 1).all()


def test_a_name_that_is_neither_a_file_nor_ours_is_refused():
    with pytest.raises(
        FileNotFoundError, match=r"no such table of ours \(bbbc021, cpjump1, jump_moa, kim2025, rxrx3_core\)"
    ):
        beside_published(card(), "kim2024", Protocol(), set())


def test_the_checked_number_of_the_moa_plate(cpjump1):
    """Each compound's published mAP, and so their mean, from the plate's profiles."""
    folder = cpjump1.parent / "jump_moa"
    if not folder.is_dir():
        pytest.skip("no jump_moa beside the checkout")
    golden = pd.read_csv(folder / "golden_mAP_BR00122250.csv").set_index("Metadata_broad_sample")
    plate = pd.read_csv(folder / "dye_BR00122250.csv.gz")
    x = plate[[c for c in plate if not c.startswith("Metadata_")]].to_numpy()
    meta = pd.DataFrame(
        {"compound": plate["Metadata_broad_sample"].fillna(""), "control": plate["Metadata_broad_sample"].isna()}
    )
    ap = average_precision(meta, x, ["compound"], [], [], ["control"], queries=~meta["control"].to_numpy())
    ours = ap[~ap["control"]].groupby("compound")["average_precision"].mean()
    np.testing.assert_allclose(ours, golden["mean_average_precision"].reindex(ours.index), atol=1e-12)
    nothing = float("nan")
    row = ("replicate", "compound", "mean_average_precision", ours.mean(), nothing, nothing, 90, nothing, "exact")
    table = beside_published(card(row), "jump_moa", Protocol(), set()).iloc[0]
    assert table["checked"] == "yes"
    assert table["published"] == table["ours"] == 0.737
