"""Where the profiles of an evaluation come from."""

from __future__ import annotations

import warnings

import hydra
import numpy as np
import pandas as pd
import pytest

from morphoclip import configs_dir, schema
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


def test_bare_profiles_with_two_tables_are_the_annotated_table(tmp_path, make_screen):
    """`metadata=[plates.tsv,drugs.csv]`: what the profiles lack is joined by plate and by perturbation."""
    screen = make_screen(0)
    screen.to_csv(tmp_path / "screen.csv", index=False)
    of_plates = [schema.MODALITY, schema.CELL_LINE, schema.TIMEPOINT]
    screen[[schema.PLATE, *of_plates]].drop_duplicates().to_csv(tmp_path / "plates.tsv", sep="\t", index=False)
    known = [c for c in screen if c.startswith("Metadata_") and c not in (schema.PLATE, schema.WELL, *of_plates)]
    screen[known].drop_duplicates(schema.PERTURBATION).to_csv(tmp_path / "drugs.csv", index=False)
    given = (schema.PLATE, schema.WELL, schema.PERTURBATION)
    bare = screen[[c for c in screen if not c.startswith("Metadata_") or c in given]]
    bare.to_csv(tmp_path / "bare.csv", index=False)

    def read(*words: str) -> pd.DataFrame:
        with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
            return read_arm(hydra.compose("evaluate", list(words)), Protocol()).table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they say how the tables were joined
        joined = read(f"profiles={tmp_path}/bare.csv", f"metadata=[{tmp_path}/plates.tsv,{tmp_path}/drugs.csv]")
    whole = read(f"profiles={tmp_path}/screen.csv")
    pd.testing.assert_frame_equal(joined[whole.columns], whole)
    with pytest.raises(FileNotFoundError, match=r"metadata=nowhere\.csv: there is no such file"):
        read(f"profiles={tmp_path}/bare.csv", "metadata=nowhere.csv")
