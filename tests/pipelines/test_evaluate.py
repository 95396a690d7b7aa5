"""evaluate.py from its words to its files: every way in, the comparison, the sweep, and the same bytes twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from morphoclip import configs_dir, schema
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.data.shards.intensities import describe_field
from morphoclip.experiment.evaluate import run as score_profiles
from morphoclip.profiling import embed, load_encoder, training_data, write_profiles
from tests.methods import tiny

ROOT = Path(__file__).parents[2]
QUICK = ["tasks=[replicate]", "p_convention=copairs", "null_size=100", "umap=false"]
COMPOUNDS = ("a", "b", "c", "d")


def run(output: Path, *words: str) -> Path:
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        words = [w.replace("encoder=", "encoder_folder=") for w in (*QUICK, *words, f"output_dir={output}")]
        return score_profiles(compose("evaluate", words, return_hydra_config=False))


def metrics(report: Path) -> pd.DataFrame:
    return pd.read_csv(report.parent / "metrics.csv")


def screen(seed: int = 0, signal: float = 1.5) -> pd.DataFrame:
    """Three plates of four compounds and eight controls."""
    rng = np.random.default_rng(seed)
    effect = dict(zip(COMPOUNDS, signal * np.random.default_rng(9).standard_normal((4, 12)), strict=True))
    rows = []
    for plate in range(3):
        for place, name in enumerate([*COMPOUNDS, *["DMSO"] * 8]):
            rows.append(
                {
                    schema.PLATE: f"P{plate}",
                    schema.WELL: schema.well_name(place // 6, place % 6),
                    schema.PERTURBATION: name,
                    schema.CONTROL_TYPE: schema.NEGCON if name == "DMSO" else "",
                    schema.MODALITY: "compound",
                    schema.CELL_LINE: "U2OS",
                    schema.TIMEPOINT: "48",
                    **dict(
                        zip((f"f{i}" for i in range(12)), rng.standard_normal(12) + effect.get(name, 0), strict=True)
                    ),
                }
            )
    return pd.DataFrame(rows).astype({f"f{i}": np.float32 for i in range(12)})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Images of the same layout: a compound darkens half the pixels of a channel of its own."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images") / "dataset"
    wells = screen()
    with ShardWriter(folder, pixel_size_um=1.0) as writer:
        for row in wells[[c for c in wells if c.startswith(schema.PREFIX)]].to_dict("records"):
            image = rng.integers(100, 4000, (5, 16, 16))
            if row[schema.PERTURBATION] in COMPOUNDS:
                channel = image[COMPOUNDS.index(row[schema.PERTURBATION])]
                channel[:] = np.where(channel < 2000, 100, channel)
            image = image.astype(np.uint16)
            writer.add(image, {**row, schema.SITE: "1", **describe_field(image, schema.CHANNELS)}, 0, 0)
    return folder


def test_every_kind_of_table_gives_the_same_scores(tmp_path):
    table = screen()
    table.to_csv(tmp_path / "table.csv", index=False)
    for plate, part in table.groupby(schema.PLATE):
        part.to_csv(tmp_path / f"{plate}.csv.gz", index=False)
    for name in ("table.parquet", "table.h5ad"):
        write_profiles(table, tmp_path / name, {})
    found = {
        words: metrics(run(tmp_path / "out", f"profiles={words}"))
        for words in (
            *(str(tmp_path / f"table.{kind}") for kind in ("csv", "parquet", "h5ad")),
            f"{tmp_path}/P*.csv.gz",
        )
    }
    first = found[str(tmp_path / "table.csv")]
    assert first.query("subset == 'all' and metric == 'mean_average_precision'")["value"].iloc[0] > 0.6
    for table in found.values():
        pd.testing.assert_frame_equal(table, first, atol=1e-6)


def test_a_baseline_is_scored_alike_and_compared_on_common_rows(tmp_path, capsys):
    good, weak = screen(0), screen(1, signal=0.0)
    good.to_parquet(tmp_path / "good.parquet")
    weak[weak[schema.PERTURBATION] != "d"].to_parquet(tmp_path / "weak.parquet")
    report = run(tmp_path / "out", f"profiles={tmp_path / 'good.parquet'}", f"baseline={tmp_path / 'weak.parquet'}")
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("profiles − baseline: replicate "))
    assert "3 common rows" in line
    text = report.read_text()
    assert ">baseline<" in text
    assert "profiles − baseline: replicate " in text
    assert "wells: all are scored on the" in printed  # that both have
    good[good[schema.PERTURBATION] != "d"].to_parquet(tmp_path / "common.parquet")
    alone = metrics(run(tmp_path / "alone", f"profiles={tmp_path / 'common.parquet'}"))
    pd.testing.assert_frame_equal(metrics(report), alone)


def test_a_checkpoint_is_embedded_scored_and_its_neighbours_pictured(dataset, tmp_path):
    method = tiny.simclr()
    method.trained_on = training_data(ShardDataset(dataset))
    trainer = tiny.trainer(1)
    trainer.fit(method, tiny.loader(tiny.bags()))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    report = run(tmp_path / "out", f"checkpoint={tmp_path / 'last.ckpt'}", f"dataset={dataset}")
    profiles = embed(load_encoder(tmp_path / "last.ckpt"), ShardDataset(dataset), progress=False)
    write_profiles(profiles, tmp_path / "profiles.parquet", {})
    again = run(tmp_path / "again", f"profiles={tmp_path / 'profiles.parquet'}", "normalize=center")
    pd.testing.assert_frame_equal(metrics(report), metrics(again))  # encoder profiles are centred unless one says else
    text = report.read_text()
    assert text.count("data:image/jpeg") == 4 * 7  # a control, the well and five neighbours of each compound
    assert "Batch effects step by step" in text
    assert (report.parent / "batch_effects_by_step.csv").is_file()
    assert "data:image/jpeg" not in again.read_text()


def test_an_encoder_folder_finds_what_its_features_can_see(dataset, tmp_path):
    from morphoclip.models import create_encoder
    from morphoclip.profiling import export_encoder

    facts = training_data(ShardDataset(dataset))
    folder = export_encoder(create_encoder("intensity_statistics"), tmp_path / "encoder", trained_on=facts)
    found = metrics(run(tmp_path / "out", f"encoder={folder}", f"dataset={dataset}"))
    assert found.query("subset == 'all' and metric == 'mean_average_precision'")["value"].iloc[0] == 1


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    screen().to_parquet(tmp_path / "screen.parquet")
    words = [f"profiles={tmp_path / 'screen.parquet'}", "normalize=center", "p_convention=exact"]
    kept = []
    for seed in (0, 0, 1):
        report = run(tmp_path / "out", *words, f"seed={seed}")
        kept.append({path.name: path.read_bytes() for path in report.parent.iterdir()})
    assert set(kept[0]) == {
        "metrics.csv",
        "arms.csv",
        "replicate.csv",
        "batch_effects_by_step.csv",
        "report.html",
        "scores.json",
    }
    assert kept[0] == kept[1]
    assert kept[0]["replicate.csv"] != kept[2]["replicate.csv"]


def test_the_sweep_from_the_command_line(tmp_path):
    """One command goes through all orders and leaves nothing but its files."""
    table = screen()
    poscon = table[schema.PERTURBATION].isin(["a", "b", "c", "d"])
    table.loc[poscon, schema.CONTROL_TYPE] = "poscon"
    table.to_parquet(tmp_path / "screen.parquet")
    command = [sys.executable, str(ROOT / "evaluate.py"), "-m", "+sweep=pipelines", "profiles=screen.parquet"]
    words = ["output_dir=out", "sweep.depth=1"]
    done = subprocess.run(
        [*command, *words], cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    result = pd.read_csv(tmp_path / "out" / "sweep.csv")
    pipelines = {"none", "center", "mad", "sphere", "inverse_normal", "l2", "pca"}
    assert set(result["pipeline"]) == {f"wells: {name}" for name in pipelines}
    assert result["on_front"].any()
    assert result[["chosen_signal", "reported_batch_effect"]].notna().all(axis=None)
    assert "7 pipelines" in (tmp_path / "out" / "sweep.html").read_text()
    assert "1 order, e.g. pca: pca: pca keeps" in done.stdout  # few wells: no 128 components
    files = {"sweep.csv", "sweep_by_set.csv", "sweep.html", "sweep.jsonl", "multirun.yaml"}
    assert {p.name for p in (tmp_path / "out").iterdir()} <= files


@pytest.mark.slow
def test_the_map_of_a_real_umap(tmp_path):
    """Wells of a compound lie closer together than wells of different compounds; a seed gives one map."""
    from morphoclip.evaluation.report.umap import umap_coordinates

    tables = [
        screen(seed, signal=4.0).assign(**{schema.PLATE: lambda t, s=seed: t[schema.PLATE] + f"-{s}"})
        for seed in range(4)
    ]
    table = pd.concat(tables, ignore_index=True)
    found, again = umap_coordinates(table), umap_coordinates(table)
    pd.testing.assert_frame_equal(found, again)
    place = found[["x", "y"]].to_numpy()
    assert np.isfinite(place).all()
    treated = found[schema.CONTROL_TYPE] == ""
    name, place = found.loc[treated, schema.PERTURBATION].to_numpy(), place[treated]
    apart = np.linalg.norm(place[:, None] - place, axis=2)
    same = name[:, None] == name
    assert apart[same].mean() < 0.5 * apart[~same].mean()
    report = run(tmp_path / "out", f"profiles={_kept(table, tmp_path)}", "umap=true")
    assert 'data-plot="umap-plate"' in report.read_text()


def _kept(table: pd.DataFrame, folder: Path) -> Path:
    table.to_parquet(folder / "table.parquet")
    return folder / "table.parquet"
