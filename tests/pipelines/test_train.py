"""The demo from end to end on a screen of a few wells: every file it promises, reuse, resume, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

import morphoclip
from morphoclip import schema
from morphoclip.data import ShardDataset, holdout
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.experiment.prepare import TRAINING_ROWS, holdout_of
from morphoclip.experiment.run import run as start
from morphoclip.methods.query import embed_prompts, load_clip
from morphoclip.models import FeatureEncoder
from morphoclip.profiling import embed
from morphoclip.training.callbacks import Speed

ROOT = Path(__file__).parents[2]
TINY = [
    "data.screen.n_genes=4",
    "data.screen.compounds_per_gene=4",
    "data.screen.dmso_wells=8",
    "data.screen.nontargeting_wells=6",
    "data.screen.lacz_wells=6",
    "data.screen.field_size=128",
    "data.loader.global_batch_size=8",
    "data.loader.sampler_options.bag_size=2",
    "data.loader.sampler_options.steps_per_epoch=4",
    "trainer.enable_progress_bar=false",
    "~callbacks.progress",
]


def config(folder: Path, *overrides: str):
    with initialize_config_dir(str(morphoclip.configs_dir()), version_base="1.3"):
        return compose("train", overrides=[*TINY, f"output_dir={folder}", *overrides])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def run(outputs) -> Path:
    return start(
        config(
            outputs,
            "trainer.max_steps=6",
            "callbacks.checkpoint.every_n_train_steps=3",
            "score.null_size=200",
            "run_id=whole",
        )
    )


def test_the_run_folder_holds_what_was_promised(run):
    for name in ("config.yaml", "metrics.csv", "replicate.csv", "report.html", "checkpoints/last.ckpt"):
        assert (run / name).is_file(), name
    files = {"config.json", "model.safetensors", "README.md", "crop_pool.safetensors", "towers"}
    assert {p.name for p in (run / "encoder").iterdir()} == files
    report = (run / "report.html").read_text()
    rows = ["chance", "intensity statistics", "classical image features", "untrained encoder", "trained", "ceiling"]
    assert all(row in report for row in rows)
    assert "Most attended crops" in report


def test_the_encoder_folder_gives_the_profiles_of_the_run(run, outputs):
    encoder = morphoclip.load_encoder(run / "encoder")
    dataset = ShardDataset(outputs / "data/simulated-fixed-0/dataset", scale_by=encoder.trained_on["scale_by"])
    again = embed(encoder, dataset, progress=False)
    kept = pd.read_parquet(run / "profiles/trained.parquet")
    features = schema.split_columns(kept)[1]
    np.testing.assert_allclose(again[features], kept[features], rtol=1e-4, atol=1e-5)


def test_held_out_compounds_and_batches_never_enter_training(run, outputs):
    cfg = config(outputs, "trainer.max_steps=1")
    dataset = ShardDataset(cfg.data.root, str(run / TRAINING_ROWS))
    assigned = holdout(dataset.fields, **holdout_of(cfg.data))
    held = set(dataset.fields.loc[assigned == "heldout", schema.PERTURBATION])
    always = set(dataset.fields.loc[assigned == "train", schema.PERTURBATION])
    compounds = held - always
    assert len(compounds) == 8  # half of each gene's four
    assert not set(dataset.table.frame[schema.PERTURBATION]) & compounds
    seen = dataset.fields.iloc[dataset.present]
    assert not set(seen[schema.PERTURBATION]) & compounds
    assert not set(seen[schema.BATCH]) & set(cfg.data.holdout.batches)


def test_scored_are_unseen_compounds_on_unseen_plates(run, outputs):
    table = pd.read_csv(run / "replicate.csv")
    compounds = table[table["Metadata_modality"] == "compound"]
    assert len(compounds) == 8
    data = config(outputs, "trainer.max_steps=1").data
    dataset = ShardDataset(data.root, str(run / TRAINING_ROWS))
    assert not set(compounds[schema.PERTURBATION]) & set(dataset.table.frame[schema.PERTURBATION])


def test_a_second_start_reuses_the_data_and_a_crashed_run_goes_on_to_the_bit(run, outputs, capsys, monkeypatch):
    options = ["trainer.max_steps=6", "callbacks.checkpoint.every_n_train_steps=1", "score=none"]
    start(config(outputs, *options, "run_id=straight"))
    shards = {p: p.stat().st_mtime_ns for p in (outputs / "data").rglob("*.tar")}

    class Crash(RuntimeError):
        pass

    def crash(self, trainer, *_):
        if trainer.global_step == 3:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Speed, "on_train_batch_end", crash)
        with pytest.raises(Crash):
            start(config(outputs, *options, "run_id=crashed"))
    start(config(outputs, *options, "run_id=crashed"))
    assert "goes on at step 2" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (outputs / "data").rglob("*.tar")} == shards
    straight, crashed = (
        torch.load(outputs / f"demo/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("straight", "crashed")
    )
    assert straight["global_step"] == crashed["global_step"] == 6
    for name, value in straight["state_dict"].items():
        again = crashed["state_dict"][name]
        assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again, name


def test_a_wrong_key_is_one_clear_error():
    result = subprocess.run(
        [sys.executable, "train.py", "trainer.max_step=3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "max_step" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_dataset_of_ones_own_trains_and_exports(run, outputs):
    overrides = [o for o in TINY if not o.startswith(("data.screen", "data.loader"))]
    with initialize_config_dir(str(morphoclip.configs_dir()), version_base="1.3"):
        own = compose(
            "train",
            overrides=[
                *overrides,
                f"output_dir={outputs}",
                f"data.root={outputs}/data/simulated-fixed-0/dataset",
                *[
                    "data=dataset",
                    "data.loader.sampler=bags",
                    "data.loader.global_batch_size=4",
                    "data.loader.num_workers=0",
                ],
                *["score=none", "name=mine", "trainer.max_steps=2", "callbacks.checkpoint.every_n_train_steps=100"],
            ],
        )
    folder = start(own)
    assert (folder / "checkpoints/last.ckpt").is_file()  # the end of training, not the last multiple of 100
    assert morphoclip.load_encoder(folder).trained_on["crop_size"] == 64
    assert morphoclip.load_encoder(folder / "encoder").trained_on["scale_by"] == "field"


@pytest.mark.parametrize(
    "experiment", sorted(path.stem for path in (morphoclip.configs_dir() / "experiment").glob("*_debug.yaml"))
)
def test_every_debug_recipe_runs_on_simulated_data(run, outputs, experiment):
    overrides = [f"experiment={experiment}", f"output_dir={outputs}", "trainer.max_steps=2", "run_id=debug"]
    with initialize_config_dir(str(morphoclip.configs_dir()), version_base="1.3"):
        recipe = compose("train", overrides=overrides)
        if "features" not in recipe.data and "table" not in recipe.data:  # the screen of `run`
            recipe = compose("train", overrides=[*overrides, *(o for o in TINY if o.startswith("data.screen."))])
    made = start(recipe)
    if recipe.get("rotation"):
        turns = sorted((made / "turns").iterdir())
        assert all(morphoclip.load_encoder(turn / "encoder").trained_on["perturbations"] for turn in turns)
        assert {p.stem for p in (made / "profiles").glob("*.parquet")} == {"untrained_encoder", experiment}
        arms = pd.read_csv(made / "arms.csv")
        assert set(arms["arm"]) == {"simulated profiles, none", "untrained encoder", experiment}
        return
    encoder = morphoclip.load_encoder(made / "encoder")
    if recipe.perturbation:
        away = (made / "encoder").rename(outputs / f"{experiment}-away")  # it answers words by itself
        vectors, names = embed_prompts(load_clip(away))
        assert vectors.shape == (len(names), encoder.embed_dim)
        assert torch.isfinite(vectors).all()
    if isinstance(encoder, FeatureEncoder) and "features" in recipe.data:
        made_by = FeatureDataset(recipe.data.features.folder).manifest["features"]
        assert encoder.trained_on["features"]["weights_sha256"] == made_by["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(("pool", "said"), [("gated", "Most attended crops"), ("mean", "crops are averaged")])
def test_a_recipe_on_cached_features_is_scored_as_others_are(run, outputs, pool, said):
    features = ["data.features.encoder.name=intensity_statistics", "encoder.heads=5", f"encoder.pool={pool}"]
    features += ["~data.features.encoder.backbone", "~data.features.encoder.image_size"]
    overrides = [*TINY, f"data.folder={outputs}/data/simulated-fixed-0", f"output_dir={outputs}", *features]
    overrides += ["score=heldout", "score.null_size=200", "trainer.max_steps=3", "run_id=" + pool]
    with initialize_config_dir(str(morphoclip.configs_dir()), version_base="1.3"):
        folder = start(compose("train", overrides=["experiment=morphoclip_debug", *overrides]))
    report = (folder / "report.html").read_text()
    rows = ["intensity statistics", "untrained encoder", "trained", "ceiling"]
    assert all(row in report for row in [*rows, "Nearest neighbours", said])
    kept = pd.read_parquet(folder / "profiles/trained.parquet")
    again = embed(morphoclip.load_encoder(folder / "encoder"), outputs / "data/simulated-fixed-0/features")
    names = schema.split_columns(kept)[1]
    np.testing.assert_allclose(again[names], kept[names], rtol=1e-4, atol=1e-5)
