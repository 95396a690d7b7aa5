"""Published numbers beside ours: matched by name of set, and marked where they cannot be compared."""

from __future__ import annotations

import hydra
import pandas as pd
import pytest
from omegaconf import OmegaConf

from morphoclip import configs_dir
from morphoclip.evaluation import ScoreCard
from morphoclip.evaluation.card.published import beside_published
from morphoclip.evaluation.card.scorecard import METRIC_COLUMNS
from morphoclip.evaluation.tasks.completeness import absent_pairs, absent_sets


@pytest.fixture(scope="module")
def protocol():
    return hydra.utils.instantiate(OmegaConf.load(configs_dir() / "protocol" / "cpjump1.yaml"))


def card(convention: str) -> ScoreCard:
    rows = [
        ("replicate", "compound_U2OS_24", "fraction_retrieved", 0.745, 0, 1, 306, float("nan"), convention),
        ("replicate", "compound_U2OS_24", "mean_average_precision", 0.66, 0, 1, 306, 0.1, convention),
        (
            "compound_gene",
            "compound_U2OS_48-orf_U2OS_48",
            "fraction_retrieved",
            0.07,
            0,
            1,
            50,
            float("nan"),
            convention,
        ),
    ]
    return ScoreCard(pd.DataFrame(rows, columns=METRIC_COLUMNS), {}, {})


def test_rows_meet_by_set_and_say_whether_they_compare(cpjump1, protocol):
    path = cpjump1.parent / "published" / "cpjump1_published_tables.csv"
    complete = {"compound_U2OS_48", "orf_U2OS_48"}
    table = beside_published(card("published"), path, protocol, complete).set_index("subset")
    pd.testing.assert_frame_equal(
        beside_published(card("published"), None, protocol, complete).set_index("subset"), table
    )
    replicate, pair = table.loc["compound_U2OS_24"], table.loc["compound_U2OS_48-orf_U2OS_48"]
    assert (replicate["published"], replicate["ours"], replicate["comparable"]) == (0.775, 0.745, "other plates")
    assert (pair["published"], pair["ours"], pair["comparable"]) == (0.075, 0.07, "yes")
    assert set(beside_published(card("exact"), path, protocol, complete)["comparable"]) == {"other convention"}


def test_pairs_that_lack_a_set_are_named(cpjump1, cpjump1_simulated, protocol):
    from morphoclip.data.metadata.annotations import read_annotations

    annotations = read_annotations(cpjump1 / "metadata")
    none = absent_sets(annotations, cpjump1_simulated, protocol)
    assert absent_pairs(annotations, none, protocol) == []
    compounds = cpjump1_simulated[cpjump1_simulated["Metadata_modality"] == "compound"]
    notes = absent_pairs(annotations, absent_sets(annotations, compounds, protocol), protocol)
    assert len(notes) == 16
    assert "pair compound_A549_24-crispr_A549_96: not scored, crispr_A549_96 absent" in notes
