"""Where the profiles of an evaluation come from."""

from __future__ import annotations

import hydra
import numpy as np
import pandas as pd

from morphoclip import configs_dir
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.evaluation import Protocol
from morphoclip.experiment.tables import read_arm
from morphoclip.models import create_encoder
from morphoclip.profiling import embed, export_encoder, training_data


def test_an_encoder_embeds_a_dataset(tmp_path):
    """`encoder=` with `dataset=`, from the command's words to a table of wells."""
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "dataset", pixel_size_um=1.0) as writer:
        for number in range(4):
            place = {"Metadata_Plate": "P1", "Metadata_Well": f"A{number + 1:02d}", "Metadata_Site": "1"}
            writer.add(rng.integers(100, 4000, (5, 16, 16)).astype(np.uint16), place, 0, 0)
    encoder = create_encoder("intensity_statistics")
    facts = training_data(ShardDataset(tmp_path / "dataset", low_percentile=1))
    folder = export_encoder(encoder, tmp_path / "encoder", trained_on=facts)
    words = [f"encoder_folder={folder}", f"dataset={tmp_path / 'dataset'}"]
    with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
        table = read_arm(hydra.compose("evaluate", words), Protocol()).table
    scaled = ShardDataset(tmp_path / "dataset", low_percentile=1)
    pd.testing.assert_frame_equal(table, embed(encoder, scaled, progress=False))
    assert table["Metadata_Well"].tolist() == ["A01", "A02", "A03", "A04"]
