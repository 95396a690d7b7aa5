import numpy as np
import pandas as pd
import pytest
import torch

from morphoclip import schema
from morphoclip.profiling import encoder_provenance, export_encoder, load_encoder, write_profiles
from tests.methods import tiny


@pytest.fixture
def folder(tmp_path):
    """An encoder folder of a trained method, and a profile table it made."""
    torch.manual_seed(0)
    method = tiny.trained(tmp_path / "run", tiny.feature_clip())
    made = export_encoder(tmp_path / "run", tmp_path / "away")
    rng = np.random.default_rng(0)
    names = [f"embedding_{i:04d}" for i in range(method.encoder.embed_dim)]
    table = pd.DataFrame(rng.normal(size=(4, len(names))), columns=names)
    wells = {schema.PLATE: ["P1", "P1", "P2", "P2"], schema.WELL: ["A01", "A02"] * 2, schema.PERTURBATION: list("abab")}
    table = pd.concat([pd.DataFrame(wells | {schema.MODALITY: "compound"}), table], axis=1)
    write_profiles(table, tmp_path / "p.parquet", encoder_provenance(load_encoder(made)))
    return made
