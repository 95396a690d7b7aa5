"""The parts of benchmarks.ssl_quality that could flatter or hide a method: what is trained, what is scored."""

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.ssl_quality import CHANGES, FACTORS, configuration, scored_crops
from morphoclip import schema
from morphoclip.data import ShardWriter
from morphoclip.data.shards.intensities import describe_field


@pytest.mark.parametrize("name", [*CHANGES, *FACTORS])
def test_every_arm_builds_on_the_larger_screen(name, tmp_path):
    config = configuration(name, 0, tmp_path, [])
    assert config.data.screen.compounds_per_gene == 14
    assert config.folder != configuration(name, 1, tmp_path, []).folder
    encoder = OmegaConf.to_container(config.encoder, resolve=True)
    assert instantiate(config.method, encoder=encoder).export_encoder().embed_dim >= 128


def test_scores_read_training_wells_and_scored_ones_alone(tmp_path):
    config = configuration("SimCLR", 0, tmp_path, [])
    image = np.random.default_rng(0).integers(100, 4000, (5, 8, 8)).astype(np.uint16)
    names = [f"compound {i}" for i in range(8)]
    with ShardWriter(tmp_path / "crops", pixel_size_um=1.0) as writer:
        for batch in ("SIM_batch1", "SIM_batch3"):
            for i, perturbation in enumerate([*names, "DMSO"]):
                row = {
                    schema.SOURCE: "s",
                    schema.BATCH: batch,
                    schema.PLATE: batch,
                    schema.WELL: f"A{i + 1:02d}",
                    schema.SITE: "1",
                    schema.PERTURBATION: perturbation,
                    schema.MODALITY: "compound",
                    schema.GENE: "G",
                    schema.CONTROL_TYPE: schema.NEGCON if perturbation == "DMSO" else "",
                }
                writer.add(image, row | describe_field(image, schema.CHANNELS), 0, 0)
    scored = scored_crops(config, str(tmp_path / "crops"), ("field", 0.1, 99.9))
    fields = scored.fields.iloc[scored.fields_of(np.arange(len(scored)))]
    kept = {batch: set(wells) for batch, wells in fields.groupby(schema.BATCH)[schema.PERTURBATION]}
    assert kept["SIM_batch1"] & kept["SIM_batch3"] == {"DMSO"}  # a compound is trained on or scored, never both
    assert kept["SIM_batch1"] | kept["SIM_batch3"] == {*names, "DMSO"}
    assert len(kept["SIM_batch1"]) == len(kept["SIM_batch3"]) == 5
