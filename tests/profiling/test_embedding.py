from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from morphoclip import schema
from morphoclip.data import ShardDataset, ShardWriter
from morphoclip.data.shards.intensities import describe_field
from morphoclip.models.classical import IntensityStatistics
from morphoclip.profiling import embed

SITES = [("P1", "A01", "1"), ("P1", "A01", "2"), ("P1", "B02", "1"), ("P2", "A01", "1"), ("P2", "A01", "2")]
REAL_IMAGES = Path(__file__).parents[2] / "../shared/data/cpjump1/images"


class ChannelMeans(torch.nn.Module):
    """An encoder whose features are known: the mean of each scaled channel."""

    channels = schema.CHANNELS
    embed_dim = 5

    def preprocess(self, images, low, high):
        low, high = low[..., None, None], high[..., None, None]
        return ((images.float() - low) / (high - low)).clamp(0, 1)

    def forward(self, x):
        assert not self.training
        assert not torch.is_grad_enabled()
        return x.mean((-2, -1))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> ShardDataset:
    """Five fields of three 32-px crops each, written in an order that is not theirs; B02 has too little foreground."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "dataset"
    with ShardWriter(folder, pixel_size_um=0.6, made_by={"arguments": {"min_foreground": 0.01}}) as writer:
        for k in range(3):
            for i in generator.permutation(len(SITES)):
                plate, well, site = SITES[i]
                field = np.random.default_rng(i).integers(100, 4000, (5, 96, 32)).astype(np.uint16)
                row = {
                    "Metadata_Plate": plate,
                    "Metadata_Well": well,
                    "Metadata_Site": site,
                    "Metadata_perturbation": "x" if well == "A01" else "DMSO",
                    "Metadata_cell_count": i * 10,
                    **describe_field(field, schema.CHANNELS),
                }
                share = 0.5 if well == "A01" else 0.001 * (k + 1)
                writer.add(field[:, k * 32 : k * 32 + 32], row, k * 32, 0, foreground=share)
    return ShardDataset(folder)


def by_hand(dataset: ShardDataset) -> pd.DataFrame:
    """Features a crop, one by one."""
    encoder, rows = ChannelMeans().eval(), []
    for i in range(len(dataset)):
        sample = dataset[i]
        images, low, high = (torch.from_numpy(a)[None] for a in (sample.image, sample.low, sample.high))
        with torch.no_grad():
            features = encoder(encoder.preprocess(images, low, high))[0].numpy()
        field = dataset.fields.iloc[dataset.fields_of([i])[0]]
        place = field[["Metadata_Plate", "Metadata_Well", "Metadata_Site"]].to_dict()
        y = int(dataset.index["y"][i])
        if field["Metadata_Well"] == "A01" or y == 64:
            rows.append({**place, "y": y} | {f"embedding_{j:04d}": v for j, v in enumerate(features)})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("reduce", ["mean", "median"])
def test_levels_equal_grouping_by_hand_whatever_the_batches(dataset, batch_size, reduce):
    def run(level):
        table = embed(ChannelMeans(), dataset, level, batch_size=batch_size, reduce=reduce, progress=False)
        place = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_crop_y"]
        keys = ["Metadata_perturbation"] if level == "perturbation" else [key for key in place if key in table]
        table = table.sort_values(keys)
        return table[[c for c in table if c.startswith("embedding_")]]

    crops = by_hand(dataset)
    names = [c for c in crops if c.startswith("embedding_")]
    crops = crops.sort_values(["Metadata_Plate", "Metadata_Well", "Metadata_Site", "y"])
    sites = crops.groupby(["Metadata_Plate", "Metadata_Well", "Metadata_Site"])[names].agg(reduce)
    wells = sites.groupby(["Metadata_Plate", "Metadata_Well"]).agg(reduce)
    perturbations = wells.groupby(["DMSO" if well == "B02" else "x" for _, well in wells.index]).agg(reduce)
    assert len(crops) == 13
    for level, expected in (("site", sites), ("well", wells), ("perturbation", perturbations)):
        np.testing.assert_allclose(run(level), expected, rtol=1e-5)
    np.testing.assert_allclose(run("crop"), crops[names], rtol=1e-5)


def test_table_holds_strings_then_float32_and_flags(dataset):
    table = embed(ChannelMeans(), dataset, progress=False)
    metadata = [c for c in table if c.startswith("Metadata_")]
    assert list(table.columns[: len(metadata)]) == metadata
    assert all(isinstance(value, str) for value in table[metadata].to_numpy().ravel())
    assert (table.dtypes[len(metadata) :] == np.float32).all()
    assert table["Metadata_low_foreground"].tolist() == ["", "True", ""]
    assert table["Metadata_cell_count"].tolist() == ["5.0", "20.0", "35.0"]
    crops = embed(ChannelMeans(), dataset, "crop", progress=False)
    assert crops[["Metadata_crop_y", "Metadata_Site"]].drop_duplicates().shape == (6, 2)


def test_rule_of_the_dataset_can_be_overruled(dataset):
    assert len(embed(ChannelMeans(), dataset, "crop", min_foreground=0.0, progress=False)) == 15
    assert len(embed(ChannelMeans(), dataset, "crop", min_foreground=0.002, progress=False)) == 14


def test_readers_in_processes_change_nothing(dataset):
    ours = embed(ChannelMeans(), dataset, batch_size=4, num_workers=2, progress=False)
    pd.testing.assert_frame_equal(ours, embed(ChannelMeans(), dataset, progress=False))


def test_the_encoder_goes_back_to_the_mode_it_was_in(dataset):
    encoder = ChannelMeans().train()
    embed(encoder, dataset, progress=False)
    assert encoder.training


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("channels", ("ER", "DNA", "RNA", "AGP", "Mito"), "'ER', 'DNA'.* order and names"),
        ("channels", ("DNA",), "the encoder takes channels"),
        ("trained_on", {"pixel_size_um": 0.3}, "trained at 0.3 µm"),
        ("trained_on", {"scale_by": "plate", "low_percentile": 0.1, "high_percentile": 99.9}, "scaled by .*plate"),
    ],
)
def test_data_the_encoder_was_not_made_for_are_refused(dataset, attribute, value, message):
    encoder = ChannelMeans()
    setattr(encoder, attribute, value)
    with pytest.raises(ValueError, match=message):
        embed(encoder, dataset, progress=False)


def test_features_that_are_not_finite_name_the_well(dataset):
    encoder = ChannelMeans()
    encoder.forward = lambda x: x.mean((-2, -1)) / 0
    with pytest.raises(ValueError, match="plate P1 well A01"):
        embed(encoder, dataset, progress=False)
    with pytest.raises(ValueError, match="'plate': use one of"):
        embed(ChannelMeans(), dataset, "plate", progress=False)


def write_screen(folder: Path) -> Path:
    """Two wells of two 128-px fields with four bright nuclei each, as TIFFs with a load_data.csv."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128]
    rows = []
    for well, site in [("A01", 1), ("A01", 2), ("B02", 1), ("B02", 2)]:
        row = {"Metadata_Plate": "P1", "Metadata_Well": well, "Metadata_Site": str(site)}
        field = generator.poisson(200, (5, 128, 128)).astype(float)
        for cy, cx in generator.integers(20, 108, (4, 2)):
            field += 3000 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 60)
        for channel, plane in zip(schema.CHANNELS, field, strict=True):
            name = f"{well}_{site}_{channel}.tiff"
            tifffile.imwrite(folder / name, plane.astype(np.uint16))
            row |= {f"FileName_Orig{channel}": name, f"PathName_Orig{channel}": "."}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "load_data.csv", index=False)
    return folder / "load_data.csv"


@pytest.mark.parametrize("mode", ["grid", "nuclei"])
def test_fields_cut_on_the_fly_equal_a_prepared_dataset(tmp_path, mode):
    from morphoclip.preparation.prepare import prepare_dataset
    from morphoclip.preparation.sources import read_load_data

    load_data = write_screen(tmp_path)
    options = {"crop_size": 32, "mode": mode, "pixel_size_um": 1.2}
    prepared = prepare_dataset(
        read_load_data(str(load_data)), tmp_path / "dataset", workers=1, progress=False, **options
    )
    for level in ("crop", "well"):
        ours = embed(ChannelMeans(), load_data, level, progress=False, **options)
        expected = embed(ChannelMeans(), prepared, level, progress=False)
        shared = [c for c in ours if c in expected]
        assert set(ours) <= set(expected)
        pd.testing.assert_frame_equal(ours[shared], expected[shared])
    assert (ours["Metadata_cell_count"].astype(float) > 1).all()


def test_an_encoder_cuts_a_load_data_csv_as_its_training_data(tmp_path):
    from morphoclip.preparation.prepare import prepare_dataset
    from morphoclip.preparation.sources import read_load_data
    from morphoclip.profiling import training_data

    load_data = write_screen(tmp_path)
    cut = {"crop_size": 16, "mode": "nuclei", "bin": 2, "pixel_size_um": 1.0, "otsu_factor": 0.7}
    sources = read_load_data(str(load_data))
    dataset = prepare_dataset(sources, tmp_path / "dataset", min_foreground=0.05, workers=1, progress=False, **cut)
    encoder = ChannelMeans()
    encoder.trained_on = training_data(ShardDataset(dataset, low_percentile=1, high_percentile=99))
    assert encoder.trained_on["pixel_size_um"] == 2.0
    expected, ours = (embed(encoder, source, progress=False) for source in (dataset, load_data))
    pd.testing.assert_frame_equal(ours, expected[list(ours)], atol=1e-4)
    with pytest.raises(ValueError, match=r"trained at 2\.0 µm.* 1\.0 µm"):
        embed(encoder, load_data, bin=1, progress=False)


def test_a_broken_field_is_left_out_and_reported(tmp_path):
    load_data = write_screen(tmp_path)
    whole = embed(ChannelMeans(), load_data, "site", crop_size=32, pixel_size_um=1.2, progress=False)
    (tmp_path / "A01_2_ER.tiff").write_bytes((tmp_path / "A01_2_ER.tiff").read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"1 fields left out.*A01_2_ER\.tiff"):
        table = embed(ChannelMeans(), load_data, "site", crop_size=32, pixel_size_um=1.2, progress=False)
    pd.testing.assert_frame_equal(table, whole.drop(index=1).reset_index(drop=True))
    with pytest.raises(ValueError, match="crop_size"):
        embed(ChannelMeans(), load_data, progress=False)
    encoder = ChannelMeans()
    encoder.trained_on = {"crop_size": 32}
    with pytest.warns(UserWarning, match="left out"):
        known = embed(encoder, load_data, "site", pixel_size_um=1.2, progress=False)
    pd.testing.assert_frame_equal(known, table)
    with pytest.raises(ValueError, match="make a dataset first"):
        embed(ChannelMeans(), load_data, crop_size=32, scale_by="plate", progress=False)


def test_real_fields(tmp_path):
    if not REAL_IMAGES.is_dir():
        pytest.skip(f"no CPJUMP1 images at {REAL_IMAGES}")
    numbers = {"Mito": 1, "AGP": 2, "RNA": 3, "ER": 4, "DNA": 5}
    rows = []
    for first in sorted(REAL_IMAGES.glob("*/*-ch1*.tiff")):
        row = {"Metadata_Plate": "P", "Metadata_Well": first.parent.name[0] + "01", "Metadata_Site": "1"}
        for channel, number in numbers.items():
            row |= {
                f"FileName_Orig{channel}": first.name.replace("ch1", f"ch{number}"),
                f"PathName_Orig{channel}": str(first.parent.resolve()),
            }
        rows.append(row)
    pd.DataFrame(rows).to_csv(tmp_path / "load_data.csv", index=False)
    table = embed(IntensityStatistics(), tmp_path / "load_data.csv", crop_size=128, progress=False)
    assert table["Metadata_Well"].tolist() == ["A01", "D01", "F01"]
    assert np.isfinite(table.filter(like="embedding_")).all(axis=None)
    assert (table["Metadata_cell_count"].astype(float) > 20).all()
