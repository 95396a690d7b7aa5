"""What the report shows beside its numbers: neighbours, clusters, batch effects step by step."""

from __future__ import annotations

import base64
import itertools

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.evaluation import Protocol
from morphoclip.evaluation.measures.batch_effects import BY_STEP, batch_scores, batch_scores_by_step
from morphoclip.evaluation.report.heat_maps import consensus_heat_maps
from morphoclip.evaluation.report.nearest import CONTROL, OTHER, RELATED, SAME, galleries, nearest_wells

ANGLES = {"A01": 0, "A02": 10, "A03": 20, "A04": 35, "A05": 55, "A06": 80}


@pytest.fixture
def wells() -> pd.DataFrame:
    """Six wells of one plate at known angles; a01 asks, and every relation is among its neighbours."""
    radians = np.deg2rad(list(ANGLES.values()))
    return pd.DataFrame(
        {
            schema.PLATE: "P1",
            schema.WELL: list(ANGLES),
            schema.PERTURBATION: ["a", "b", "a", "c", "DMSO", "DMSO"],
            schema.NAME: ["drug a", "drug b", "drug a", "", "", ""],
            schema.CONTROL_TYPE: ["", "", "", "", "negcon", "negcon"],
            schema.MODALITY: "compound",
            schema.CELL_LINE: "U2OS",
            schema.TIMEPOINT: "24",
            schema.TARGETS: ["T1|T2", "T2", "T1|T2", "T3", "", ""],
            "f0": np.cos(radians),
            "f1": np.sin(radians),
        }
    )


def test_neighbours_and_how_they_relate(wells):
    replicates = pd.DataFrame({schema.PERTURBATION: ["a"], "mean_average_precision": [0.5]})
    (found,) = nearest_wells(wells, replicates, k=4)
    assert (found.query, found.control, found.score) == (0, 4, 0.5)
    assert found.neighbours == (1, 2, 3, 4)
    assert found.relations == (RELATED, SAME, OTHER, CONTROL)
    np.testing.assert_allclose(found.cosines, np.cos(np.deg2rad([10, 20, 35, 55])))
    shuffled = wells.sample(frac=1, random_state=3)
    (again,) = nearest_wells(shuffled, replicates, k=4)
    assert shuffled[schema.WELL].iloc[list(again.neighbours)].tolist() == ["A02", "A03", "A04", "A05"]


def test_neighbourhoods_run_from_the_best_to_the_worst(wells):
    replicates = pd.DataFrame({schema.PERTURBATION: ["b", "c", "a"], "mean_average_precision": [0.4, 0.1, 0.9]})
    assert [one.score for one in nearest_wells(wells, replicates, count=2, k=2)] == [0.9, 0.1]
    assert nearest_wells(wells, replicates, k=6) == []
    assert nearest_wells(wells.drop(columns=["f0", "f1"]), replicates) == []


def test_a_gallery_shows_the_control_first_and_each_well_its_own_picture(wells):
    replicates = pd.DataFrame({schema.PERTURBATION: ["a"], "mean_average_precision": [0.5]})
    asked = []

    def pictures(rows: pd.DataFrame) -> list[np.ndarray]:
        asked.extend(rows[schema.WELL])
        return [np.full((2, 2), int(well[1:]), np.uint8) for well in rows[schema.WELL]]

    (row,) = galleries(wells, nearest_wells(wells, replicates, k=2), pictures)
    assert asked == ["A05", "A01", "A02", "A03"]
    assert row.title == "drug a: replicate mAP 0.50"
    captions, relations, images = zip(*row.pictures, strict=True)
    assert captions == ("negative control, P1 A05", "drug a, P1 A01", "drug b, P1 A02 · 0.98", "drug a, P1 A03 · 0.94")
    assert relations == (CONTROL, "query", RELATED, SAME)
    assert [int(image[0, 0]) for image in images] == [5, 1, 2, 3]


def test_heat_maps_hold_the_cosines_in_the_trees_order(make_screen):
    table = make_screen(0, signal=3.0)
    maps = {m["name"]: m for m in consensus_heat_maps(table, Protocol())}
    assert set(maps) == {"compound_U2OS_24", "crispr_U2OS_96", "orf_U2OS_48"}
    found = maps["crispr_U2OS_96"]
    n = len(found["names"])
    assert (n, found["of"]) == (16, 16)
    values = np.frombuffer(base64.b64decode(found["values"]), np.uint8) / 127 - 1
    treated = table[(table[schema.MODALITY] == "crispr") & (table[schema.CONTROL_TYPE] == "")]
    profiles = treated.groupby(schema.PERTURBATION)[[f"f{i}" for i in range(24)]].median()
    ids = [name.split(" ")[0] for name in found["names"]]
    x = profiles.loc[ids].to_numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(values, (x @ x.T)[np.triu_indices(n, 1)], atol=1 / 127)
    genes = [name.split("(")[1] for name in found["names"]]
    beside = np.mean([a == b for a, b in itertools.pairwise(genes)])
    assert beside > 0.3  # guides of a gene lie side by side; by chance 1 in 15
    few = consensus_heat_maps(table, Protocol(), ["compound-GENE0-0", "compound-GENE1-0", "compound-GENE2-0"])
    assert [(m["name"], len(m["names"])) for m in few] == [("compound_U2OS_24", 3)]


def test_batch_scores_before_and_after_each_step(make_screen):
    from morphoclip.profiling import Normalizer

    table = make_screen(0)
    crispr = table[schema.MODALITY] == "crispr"
    features = [f"f{i}" for i in range(24)]
    plate = pd.factorize(table[schema.PLATE])[0]
    shift = 5 * np.random.default_rng(0).standard_normal((plate.max() + 1, 24))[plate]
    table[features] = np.where(crispr.to_numpy()[:, None], table[features] + shift, table[features])
    steps = [{"step": "center", "fit_on": "negcon", "by": "plate"}, {"step": "l2"}]
    found = batch_scores_by_step(table[crispr], Protocol(), Normalizer(steps).after_each_step)
    shown = found[found["subset"] == "crispr_U2OS_96"].set_index("step")
    assert shown.index.tolist() == ["none", "center", "l2", "shuffled batches"]
    assert shown.loc["none", "plate_map"] > shown.loc["center", "plate_map"] + 0.3
    assert shown.loc["center", "plate_map"] == pytest.approx(shown.loc["shuffled batches", "plate_map"], abs=0.1)
    final = Normalizer(steps).fit_transform(table[crispr])
    alone = batch_scores(final[features].to_numpy(), final[schema.PLATE]).set_index("metric")["value"]
    assert shown.loc["l2", list(BY_STEP)].to_dict() == pytest.approx(alone[list(BY_STEP)].to_dict())
    one_plate = table[table[schema.PLATE] == "crispr0"]
    assert batch_scores_by_step(one_plate, Protocol(), Normalizer(steps).after_each_step).empty
