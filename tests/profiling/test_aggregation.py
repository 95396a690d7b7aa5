from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip.profiling.aggregation import aggregate, consensus, enough_foreground, reduce_runs


def runs(keys: list[int], x: np.ndarray, size: int):
    """The rows of x by key, cut into pieces of at most `size` rows as a loader would."""
    start = 0
    while start < len(keys):
        stop = start + 1
        while stop < len(keys) and keys[stop] == keys[start] and stop - start < size:
            stop += 1
        yield keys[start], x[start:stop]
        start = stop


@pytest.mark.parametrize("how", ["mean", "median"])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_streamed_reduction_equals_grouping_whatever_the_batches(how, size):
    keys = [3] * 5 + [1] * 2 + [7] * 4
    x = np.random.default_rng(0).normal(size=(len(keys), 3)).astype(np.float32)
    ours = {key: row[0] for key, row in reduce_runs(runs(keys, x, size), how)}
    expected = pd.DataFrame(x.astype(np.float64)).groupby(keys).agg(how)
    np.testing.assert_allclose(pd.DataFrame(ours).T.sort_index(), expected)


def test_aggregate_keeps_what_a_group_agrees_on():
    table = pd.DataFrame(
        {
            "Metadata_Plate": ["P2", "P1", "P1", "P2"],
            "Metadata_Well": ["A01", "A01", "A01", "A01"],
            "Metadata_Site": ["1", "1", "2", "2"],
            "Metadata_gene": ["", "TP53", "TP53", None],
            "f": np.array([1, 2, 4, 9], np.float32),
        }
    )
    ours = aggregate(table, ["Metadata_Plate", "Metadata_Well"])
    assert ours.to_dict("list") == {
        "Metadata_Plate": ["P1", "P2"],
        "Metadata_Well": ["A01", "A01"],
        "Metadata_Site": ["", ""],
        "Metadata_gene": ["TP53", ""],
        "f": [3.0, 5.0],
    }
    assert ours["f"].dtype == np.float32
    with pytest.raises(ValueError, match="Metadata_Batch"):
        aggregate(table, ["Metadata_Batch"])
    with pytest.raises(ValueError, match="'mode': use one of"):
        aggregate(table, ["Metadata_Plate"], "mode")


def test_consensus_never_mixes_experiments(screen):
    screen["Metadata_cell_line"] = np.where(screen["Metadata_Plate"].isin(["P0", "P2"]), "U2OS", "A549")
    screen.loc[23, "Metadata_perturbation"] = ""
    everything = consensus(screen, "all")
    assert len(everything) == 17 * 2
    row = everything.query("Metadata_perturbation == 'cpd9' and Metadata_cell_line == 'U2OS'")
    wells = screen.query("Metadata_perturbation == 'cpd9' and Metadata_cell_line == 'U2OS'")
    assert row["f0"].item() == wells["f0"].median()
    assert len(consensus(screen, "batch", "mean")) == 17 * 4 - 1
    with pytest.raises(ValueError, match="'plate': use one of"):
        consensus(screen, "plate")


def test_consensus_ignores_row_order(screen):
    shuffled = consensus(screen.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(shuffled, consensus(screen))


def test_foreground_rule_keeps_the_best_crop_of_a_poor_well():
    foreground = np.array([0.5, 0.001, np.nan, 0.002, 0.009, 0.0, 0.01])
    well = np.array([0, 0, 1, 2, 2, 2, 3])
    kept, lacking = enough_foreground(foreground, well, 0.01)
    assert kept.tolist() == [True, False, True, False, True, False, True]
    assert lacking.tolist() == [False, False, False, False, True, False, False]
