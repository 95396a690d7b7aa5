"""The mean average precision published for a JUMP-MOA plate comes out of `evaluate.py protocol=jump_moa`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.cli.hydra_app import main
from tests.datasets import REAL

MOA = REAL.parent / "jump_moa"


@pytest.mark.skipif(not MOA.is_dir(), reason="no ../shared/data/jump_moa beside the checkout")
def test_the_published_scores_of_a_plate(tmp_path):
    options = ["protocol=jump_moa", "umap=false", "null_size=100", "tasks=[replicate,same_compound_nearest]"]
    main("evaluate", [f"profiles={MOA}/dye_BR00122250.csv.gz", *options, f"output_dir={tmp_path}"])
    ours = pd.read_csv(tmp_path / "replicate.csv").set_index(schema.PERTURBATION)["mean_average_precision"]
    published = pd.read_csv(MOA / "golden_mAP_BR00122250.csv").set_index("Metadata_broad_sample")[
        "mean_average_precision"
    ]
    published = published.drop("control")  # DMSO among itself
    assert set(ours.index) == set(published.index)
    np.testing.assert_allclose(ours, published.loc[ours.index], atol=1e-6)
    metrics = pd.read_csv(tmp_path / "metrics.csv").set_index(["task", "subset", "metric"])["value"]
    assert metrics["replicate", "BR00122250", "replicate_other_well"] == pytest.approx(published.mean())
    assert (
        metrics["same_compound_nearest", "BR00122250", "accuracy"]
        > metrics["same_compound_nearest", "BR00122250", "accuracy_ungated"]
    )
