"""The card says what an encoder was trained on, how it scored, and under which licence."""

from __future__ import annotations

import pandas as pd

from morphoclip.data import ShardDataset
from morphoclip.export import export_encoder, training_data
from morphoclip.models import create_encoder
from tests.export.test_export import Teacher, checkpoint_of

SMALL = {"name": "vit_demo", "depth": 1, "embed_dim": 32, "image_size": 32}


def test_the_card_counts_what_was_trained_on(tmp_path, screen):
    dataset = ShardDataset(screen)
    facts = training_data(dataset)
    fields = dataset.fields
    named = fields.loc[fields["Metadata_perturbation"] != "", "Metadata_perturbation"]
    assert facts["counts"] == {
        "plates": 6,
        "wells": len(fields),
        "perturbations": named.nunique(),
        "crops": len(dataset),
    }
    card = (export_encoder(create_encoder(**SMALL), tmp_path / "e", trained_on=facts) / "README.md").read_text()
    assert f"{named.nunique()} perturbations, 6 plates" in card
    assert "Channels, in this order: DNA, ER, RNA, AGP, Mito" in card
    assert "Pixel size: 1.0 µm" in card
    assert "The run was not scored" in card
    assert "Not stated by whoever exported" in card


def test_the_card_of_a_scored_run_shows_scores_beside_their_controls(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    checkpoint_of(Teacher(), run / "checkpoints/last.ckpt")
    rows = {"arm": ["trained", "untrained"], "task": ["replicate"] * 2, "mean_average_precision": [0.71234, 0.5]}
    rows |= {"n": [918, 918], "same_position_dmso": [0.3788, 0.4253], "gain": [None, 0.2]}
    pd.DataFrame(rows).to_csv(run / "arms.csv", index=False)
    first = export_encoder(run, tmp_path / "first", license="cc-by-4.0")
    from_checkpoint = export_encoder(run / "checkpoints/last.ckpt", tmp_path / "second")
    from_folder = export_encoder(first, tmp_path / "third")
    for folder in (first, from_checkpoint, from_folder):
        card = (folder / "README.md").read_text()
        assert "| trained | replicate | 0.712 | 918 | 0.379 |" in card
        assert "same position dmso" in card
        assert "gain |" not in card
    assert "license: cc-by-4.0" in (from_folder / "README.md").read_text()
    assert "license:" not in (from_checkpoint / "README.md").read_text()
