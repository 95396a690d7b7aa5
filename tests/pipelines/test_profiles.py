"""Training on profile tables as on any dataset: one training or a rotation, resumed to the bit, and put to other tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

import morphoclip
from morphoclip import schema
from morphoclip.data.loading.features import FeatureDataset
from morphoclip.experiment.evaluate import run as evaluate
from morphoclip.experiment.run import run as start
from morphoclip.profiling import embed
from morphoclip.simulation import ScreenConfig, simulate_profiles
from morphoclip.training.callbacks import Speed

QUIET = ["trainer.enable_progress_bar=false", "~callbacks.progress", "score.null_size=200"]
ONCE = [*QUIET, "experiment=cpjump1_profiles_debug", "rotation=null", "name=once"]


def config(name: str, *overrides: str):
    with initialize_config_dir(str(morphoclip.configs_dir()), version_base="1.3"):
        return compose(name, overrides=list(overrides))


@pytest.fixture(scope="module", autouse=True)
def no_map():
    """Without the report's map, whose library takes a minute to load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morphoclip.experiment.report.umap_coordinates", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def run(outputs) -> Path:
    """One training that never saw plate SIM2-compound-2, nor a quarter of the compounds."""
    held = "data.holdout={plates: [SIM2-compound-2], fraction: .25, seed: 1}"
    return start(config("train", *ONCE, held, f"output_dir={outputs}", "trainer.max_steps=4", "run_id=held"))


def test_one_training_keeps_its_encoder_and_is_scored_on_what_it_never_saw(run, outputs):
    encoder = morphoclip.load_encoder(run / "encoder")
    dataset = FeatureDataset(outputs / "data/simulated-profiles-0/dataset")
    assert tuple(encoder.trained_on["features"]["names"]) == dataset.names
    kept = pd.read_parquet(run / "profiles/trained.parquet")
    names = schema.split_columns(kept)[1]
    np.testing.assert_allclose(embed(encoder, dataset)[names], kept[names], rtol=1e-5, atol=1e-6)
    seen = dataset.fields.iloc[FeatureDataset(dataset.folder, str(run / "training_rows.npy")).present]
    assert set(encoder.trained_on["perturbations"][schema.PERTURBATION]) == set(seen[schema.PERTURBATION])
    assert set(seen[schema.PLATE]) == {"SIM1-compound-1", "SIM2-compound-1"}
    scored = set(pd.read_csv(run / "replicate.csv")[schema.PERTURBATION])
    assert scored == set(dataset.fields[schema.PERTURBATION]) - set(seen[schema.PERTURBATION])
    assert set(pd.read_csv(run / "arms.csv")["arm"]) == {"simulated profiles, none", "untrained encoder", "trained"}


def test_all_wells_train_without_a_holdout_and_the_report_says_so(outputs):
    made = start(config("train", *ONCE, f"output_dir={outputs}", "trainer.max_steps=2", "run_id=all"))
    assert (made / "encoder/config.json").is_file()
    assert not (made / "training_rows.npy").exists()
    report = (made / "report.html").read_text()
    assert "every query was trained on" in report
    assert "left out of training in turn" not in report


def test_a_crashed_training_goes_on_to_the_bit(outputs, monkeypatch):
    options = [*ONCE, f"output_dir={outputs}", "trainer.max_steps=6", "callbacks.checkpoint.every_n_train_steps=1"]
    options += ["score.tasks=[]", "data.loader.num_workers=1"]
    start(config("train", *options, "run_id=straight"))

    class Crash(RuntimeError):
        pass

    def crash(self, trainer, *_):
        if trainer.global_step == 3:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Speed, "on_train_batch_end", crash)
        with pytest.raises(Crash):
            start(config("train", *options, "run_id=crashed"))
    start(config("train", *options, "run_id=crashed"))
    straight, crashed = (
        torch.load(outputs / f"once/{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("straight", "crashed")
    )
    assert straight["global_step"] == crashed["global_step"] == 6
    for name, value in straight["state_dict"].items():
        again = crashed["state_dict"][name]
        assert torch.equal(value, again) if isinstance(value, torch.Tensor) else value == again, name


def test_a_rotation_decides_alone_what_is_held_out(outputs):
    given = [*QUIET, "experiment=cpjump1_profiles_debug", f"output_dir={outputs}", "data.validation={fraction: .1}"]
    with pytest.raises(ValueError, match="the rotation decides what is held out"):
        start(config("train", *given))


def test_tables_with_other_arguments_are_not_imported_over_the_first(run, outputs):
    changed = [*ONCE, f"output_dir={outputs}", "data.table.standardise_by_plate=true", "run_id=changed"]
    with pytest.raises(FileExistsError, match=r"standardise_by_plate=False, this asks for True.*data\.folder="):
        start(config("train", *changed))


@pytest.fixture(scope="module")
def other(outputs) -> Path:
    """Another screen of the same features and, half of it, of other compounds."""
    return simulate_profiles(
        outputs / "other",
        ScreenConfig(
            seed=0,
            compound_plates=(2,),
            crispr_plates=(0,),
            orf_plates=(0,),
            n_genes=8,
            compounds_per_gene=4,
            dmso_wells=16,
        ),
    )


def test_another_table_goes_through_the_encoder_beside_its_own_features(run, outputs, other):
    tables = f"profiles={other}/profiles/*.csv.gz"
    given = [
        tables,
        f"metadata={other}/workspace/metadata",
        f"encoder_folder={run}/encoder",
        "umap=false",
        "tasks=[replicate]",
    ]
    evaluate(config("evaluate", *given, f"output_dir={outputs}/eval", "null_size=200", "p_convention=copairs"))
    arms = pd.read_csv(outputs / "eval/arms.csv")
    assert list(arms["arm"]) == ["given features", "given features, centred", "profiles"]
    table = pd.read_csv(outputs / "eval/replicate.csv")
    trained = morphoclip.load_encoder(run / "encoder").trained_on["perturbations"][schema.PERTURBATION]
    known = table[schema.PERTURBATION].isin(trained)
    assert table.loc[known, "seen"].eq("seen").all()
    assert table.loc[~known, "seen"].eq("clean").all()
    assert known.sum() >= 8
    assert (~known).sum() >= 16
    metrics = pd.read_csv(outputs / "eval/metrics.csv")
    assert {"mean_average_precision_seen", "mean_average_precision_clean"} <= set(metrics["metric"])
    assert "of the encoder&#39;s 64 features found by name" in (outputs / "eval/report.html").read_text()


def test_scores_of_the_given_features_are_those_of_the_table_by_itself(outputs, other, run):
    tables = f"profiles={other}/profiles/*.csv.gz"
    given = [tables, f"metadata={other}/workspace/metadata", "umap=false", "tasks=[replicate]", "normalize=center"]
    evaluate(config("evaluate", *given, f"output_dir={outputs}/alone", "null_size=200", "p_convention=copairs"))
    alone = pd.read_csv(outputs / "alone/arms.csv")
    beside = pd.read_csv(outputs / "eval/arms.csv").set_index("arm").loc["given features, centred"]
    assert alone["mean_average_precision"].item() == pytest.approx(beside["mean_average_precision"])


def test_what_does_not_go_together_is_refused(run, outputs, other):
    tables, out = f"profiles={other}/profiles/*.csv.gz", f"output_dir={outputs}/refused"
    with pytest.raises(ValueError, match=r"seen_by=plate.*training=TABLE"):
        evaluate(
            config(
                "evaluate",
                tables,
                f"encoder_folder={run}/encoder",
                out,
                "seen_by=plate",
                "tasks=[replicate]",
                "umap=false",
                f"metadata={other}/workspace/metadata",
                "null_size=20",
                "p_convention=copairs",
            )
        )
    with pytest.raises(ValueError, match=r"or profiles= with one of the two"):
        evaluate(config("evaluate", out))
