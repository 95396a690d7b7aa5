"""Screens embedded plate by plate: resumed to the same bytes, in the formats that others read, at the stated cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.export import export_encoder, load_encoder, training_data
from morphoclip.models import create_encoder
from morphoclip.models.classical import IntensityStatistics
from morphoclip.profiling import embed, read_profiles
from morphoclip.profiling.by_plate import deal, parts_folder
from morphoclip.profiling.cost import cost_of
from morphoclip.profiling.crops import DatasetCrops
from morphoclip.profiling.embedding import open_crops
from morphoclip.profiling.encoding import Run, encoded
from morphoclip.profiling.screen import embed_screen
from tests.datasets import screen_rows, write_screen

KILLED = """
import os, sys
from morphoclip.export import load_encoder
from morphoclip.profiling.screen import embed_screen

done = []
def say(line):
    done.append(line)
    if len(done) == 2:
        os.kill(os.getpid(), 9)

embed_screen(load_encoder(sys.argv[1]), sys.argv[2], sys.argv[3], progress=False, say=say)
"""


@pytest.fixture(scope="module")
def screen16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six plates, 88 fields of 4 crops of 16 px."""
    return write_screen(tmp_path_factory.mktemp("screen") / "dataset", screen_rows(), size=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, screen16: Path) -> Path:
    """An encoder folder for `screen16`."""
    torch.manual_seed(0)
    encoder = create_encoder("covariance_vit", image_size=16, embed_dim=32, stem_widths=(8, 16))
    encoder.trained_on = training_data(ShardDataset(screen16))
    return export_encoder(encoder, tmp_path_factory.mktemp("encoder") / "encoder")


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, screen16, folder):
    whole, out = tmp_path / "whole.parquet", tmp_path / "out.parquet"
    assert embed_screen(load_encoder(folder), screen16, whole, progress=False) == 88
    arguments = [str(path) for path in (folder, screen16, out)]
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, *arguments], timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    parts = sorted(parts_folder(out).glob("*.parquet"))
    assert [path.name for path in parts] == ["000000-b1c.parquet", "000001-b1p1.parquet"]
    times = [path.stat().st_mtime_ns for path in parts]
    said: list[str] = []
    seen: list[list[int]] = []

    def say(line: str) -> None:
        said.append(line)
        seen.append([path.stat().st_mtime_ns for path in parts])

    embed_screen(load_encoder(folder), str(screen16), out, progress=False, say=say)
    assert said[0] == "2 of 6 plates were done before"
    assert [line.split(":")[0] for line in said[1:]] == [f"plate {name}" for name in ("b1p2", "b2c", "b2p1", "b2p2")]
    assert all(found == times for found in seen)
    assert out.read_bytes() == whole.read_bytes()
    assert not parts_folder(out).exists()
    assert json.loads((tmp_path / "out.parquet.json").read_text())["level"] == "well"


def test_the_file_holds_the_table_of_embed(tmp_path, screen16, folder):
    encoder = load_encoder(folder)
    for level in ("crop", "site", "well", "perturbation"):
        expected = embed(encoder, screen16, level, progress=False)
        embed_screen(encoder, screen16, tmp_path / f"{level}.parquet", level, progress=False, say=lambda line: None)
        found = read_profiles(tmp_path / f"{level}.parquet")
        metadata, features = schema.split_columns(expected)
        assert found[metadata].equals(read_profiles_text(expected[metadata]))
        np.testing.assert_array_equal(found[features], expected[features])
    assert {"Metadata_crop_y", "Metadata_crop_x"} <= set(embed(encoder, screen16, "crop", progress=False))


def read_profiles_text(metadata: pd.DataFrame) -> pd.DataFrame:
    """Metadata as `read_profiles` gives it: 5.0 becomes 5."""
    return metadata.replace(r"(\d+)\.0", r"\1", regex=True)


def test_other_settings_do_not_go_on_with_plates_done_before(tmp_path, screen16, folder):
    out, encoder = tmp_path / "out.parquet", load_encoder(folder)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_screen(encoder, screen16, out, progress=False, say=stop)
    for change in ({"level": "crop"}, {"precision": "bf16"}, {"min_foreground": 0.0}):
        with pytest.raises(ValueError, match=r"embedded with another .*remove that folder"):
            embed_screen(encoder, screen16, out, progress=False, **change)
    embed_screen(encoder, screen16, out, progress=False, batch_size=3)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "covariance_vit", "image_size": 16, "embed_dim": 32},
        {"name": "vit_tiny_patch16_224", "image_size": 16, "depth": 2},
        {"name": "test_resnet"},
    ],
    ids=lambda config: config["name"],
)
def test_a_feature_depends_neither_on_the_batch_nor_on_the_place_in_it(screen16, config):
    torch.manual_seed(0)
    encoder, dataset = create_encoder(**config), ShardDataset(screen16)
    tables = [embed(encoder, dataset, "crop", batch_size=size, progress=False) for size in (1, 7, 64)]
    features = [table[schema.split_columns(table)[1]].to_numpy() for table in tables]
    scale = np.abs(features[0]).max()
    for other in features[1:]:
        assert np.abs(other - features[0]).max() <= 1e-6 * max(1, scale)
    crops = DatasetCrops(dataset, 64)
    alone = crops.only(crops.plate == 3)
    (_, one), *_ = encoded(encoder, alone, Run(64, torch.device("cpu")), progress=False)
    own = np.flatnonzero(crops.plate[dataset.fields_of(crops.items)] == 3)
    np.testing.assert_array_equal(features[2][own], one)  # batches end with a plate, so no other plate matters at all


def test_bf16_is_close_and_other_precisions_are_refused(screen16, folder):
    encoder = load_encoder(folder)
    exact, half = (embed(encoder, screen16, precision=p, progress=False) for p in ("float32", "bf16"))
    a, b = (torch.tensor(table[schema.split_columns(table)[1]].to_numpy()) for table in (exact, half))
    assert torch.cosine_similarity(a, b).min() > 0.99
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="precision='fp8': use one of float32, bf16"):
        embed(encoder, screen16, precision="fp8", progress=False)


def test_pycytominer_reads_the_layout_of_deep_profiler(tmp_path, screen16, folder):
    load = pytest.importorskip("pycytominer.cyto_utils.load")
    encoder = load_encoder(folder)
    assert embed_screen(encoder, screen16, tmp_path / "out", deep_profiler=True, progress=False) == 352
    crops = embed(encoder, screen16, "crop", progress=False)
    own = crops[(crops["Metadata_Plate"] == "b2p1") & (crops["Metadata_Well"] == "A03")]
    path = tmp_path / "out/b2p1/A03/1.npz"
    found = load.load_npz_features(str(path))
    assert set(found["Metadata_Plate"]) == {"b2p1"}
    np.testing.assert_array_equal(found.filter(like="embedding_"), own[schema.split_columns(own)[1]])
    centres = load.load_npz_locations(str(path))
    np.testing.assert_array_equal(centres["Location_Center_X"], own["Metadata_crop_x"].astype(float) + 8)
    np.testing.assert_array_equal(centres["Location_Center_Y"], own["Metadata_crop_y"].astype(float) + 8)
    assert len(pd.read_csv(tmp_path / "out/index.csv")) == 88
    with pytest.raises(FileExistsError, match="not empty"):
        embed_screen(encoder, screen16, tmp_path / "out", deep_profiler=True, progress=False)


def test_a_folder_of_tiffs_equals_its_load_data_csv(tmp_path, load_data_csv, plate_of_tiffs):
    options = {"crop_size": 32, "pixel_size_um": 1.2, "progress": False}
    encoder = IntensityStatistics()
    listed = embed(encoder, load_data_csv, "crop", **options)
    found = embed(encoder, plate_of_tiffs, "crop", **options)
    pd.testing.assert_frame_equal(found, listed[list(found)])
    embed_screen(encoder, plate_of_tiffs, tmp_path / "t.h5ad", "crop", say=lambda line: None, **options)
    table = read_profiles(tmp_path / "t.h5ad")
    np.testing.assert_array_equal(table[schema.split_columns(table)[1]], found[schema.split_columns(found)[1]])


def test_fields_left_out_are_in_the_sidecar(tmp_path, load_data_csv, plate_of_tiffs):
    broken = sorted(plate_of_tiffs.rglob("r01c02f01*ch2*"))[0]
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.warns(UserWarning, match="1 fields left out"):
        embed_screen(
            IntensityStatistics(), load_data_csv, tmp_path / "out.csv", crop_size=32, pixel_size_um=1.2, progress=False
        )
    assert pd.read_csv(tmp_path / "out.csv")["Metadata_Well"].tolist() == ["A01", "B01"]
    left_out = json.loads((tmp_path / "out.csv.json").read_text())["left_out"]
    assert len(left_out) == 1
    assert broken.name in left_out[0]


def test_the_cost_is_that_of_the_sample_times_the_screen(screen16, folder):
    encoder, run = load_encoder(folder), Run(16, torch.device("cpu"))
    crops = open_crops(encoder, screen16, 16)
    cost = cost_of(encoder, crops, "crop", run, seconds=0)
    assert cost.sampled < 88
    assert (cost.fields, cost.wells, cost.plates) == (88, 88, 6)
    assert cost.hours == pytest.approx(cost.seconds * 88 / cost.sampled / 3600)
    text = "\n".join(cost.lines())
    assert "core-hours" in text
    assert "88 fields, 88 wells, 6 plates" in text
    whole = cost_of(encoder, crops.only(crops.plate == 0), "well", run, seconds=100)
    assert (whole.sampled, whole.crops, whole.plates) == (6, 24, 1)


def test_progress_counts_fields_and_wells(screen16, folder, capsys):
    embed(load_encoder(folder), screen16, batch_size=3)  # a field has four crops
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("embed, well 88 of 88: 88/88 [")
    assert "field/s]" in lines[-1]


def test_crops_of_a_size_that_the_encoder_does_not_take_are_refused(screen16):
    fixed = create_encoder("vit_tiny_patch16_224", image_size=32, depth=1)
    with pytest.raises(ValueError, match="takes crops of 32 px, but the data have 16 px"):
        embed(fixed, ShardDataset(screen16), progress=False)
    any_size = {"dynamic_img_size": True, "patch_size": 12, "depth": 1}
    with pytest.raises(ValueError, match="16 px cannot be divided into the encoder's patches of 12 px"):
        embed(create_encoder("vit_tiny_patch16_224", image_size=24, **any_size), ShardDataset(screen16), progress=False)


def test_plates_are_dealt_evenly():
    owner = deal(np.array([5, 9, 1, 4, 4, 7]), 2)
    loads = np.bincount(owner, weights=[5, 9, 1, 4, 4, 7])
    assert loads.tolist() == [14, 16]  # by hand: 9 + 4 + 1 and 7 + 5 + 4


def test_mistakes_of_the_command_are_one_line(tmp_path, screen16, folder):
    from typer.testing import CliRunner

    from morphoclip.cli.main import app

    def run(*arguments: object):
        return CliRunner().invoke(app, ["embed", str(folder), str(screen16), *map(str, arguments)])

    assert "give --out FILE, or --dry-run" in run().output
    assert "are for a load_data.csv, a folder" in run("--out", tmp_path / "a.parquet", "--bin", 2).output
    dry = run("--dry-run", "--num-workers", 1)
    assert dry.exit_code == 0
    assert dry.output.splitlines()[1].startswith("all: 88 fields, 88 wells, 6 plates: ")
    assert not list(tmp_path.iterdir())
