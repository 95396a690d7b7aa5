"""Features on disk and tables in memory: the same rows, samplers and splits as pixels; nothing half-written."""

import numpy as np
import pandas as pd
import pytest
import torch

from morphoclip import schema
from morphoclip.data import ShardDataset
from morphoclip.data.loading.features import (
    FeatureDataModule,
    FeatureDataset,
    FeatureWriter,
    TableDataModule,
    TableDataset,
)
from morphoclip.data.shards.assignments import write_splits
from morphoclip.models import create_encoder
from morphoclip.profiling.features import embed_features, write_features


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = [
        {
            schema.PLATE: f"P{plate}",
            schema.WELL: f"A{well + 1:02d}",
            schema.PERTURBATION: ["DMSO", "a", "b", "c", "g1", "o1"][well % 6],
            schema.MODALITY: ["compound", "compound", "compound", "compound", "crispr", "orf"][well % 6],
            schema.CONTROL_TYPE: "negcon" if well % 6 == 0 else "",
        }
        for plate in range(2)
        for well in range(12)
    ]
    values = pd.DataFrame(rng.normal(size=(24, 4)), columns=list("wxyz"))
    return pd.concat([pd.DataFrame(rows), values], axis=1)


def test_a_table_gives_bags_of_one_perturbation_across_plates(table):
    module = TableDataModule(table, 4, sampler_options={"bag_size": 3})
    batch = next(iter(module.train_dataloader()))
    assert batch.features.shape == (4, 3, 1, 4)
    for bag, perturbation in enumerate(batch.perturbation):
        rows = batch.sample[bag]
        assert set(table[schema.PERTURBATION].iloc[rows]) == {sorted(set(table[schema.PERTURBATION]))[perturbation]}
        assert len(batch.plate[bag].unique()) == 2
        np.testing.assert_array_equal(batch.features[bag, :, 0], table[list("wxyz")].to_numpy(np.float32)[rows])


def test_batches_made_ahead_are_the_same_and_resume_where_they_were_handed_out(table):
    def module(num_workers):
        return TableDataModule(table, 4, num_workers=num_workers, sampler_options={"bag_size": 2, "steps_per_epoch": 6})

    plain = [batch.sample for batch in module(0).train_dataloader()]
    ahead = module(1).train_dataloader()
    batches = iter(ahead)
    started = [next(batches).sample for _ in range(2)]
    state = ahead.state_dict()
    batches.close()
    resumed = module(1).train_dataloader()
    resumed.load_state_dict(state)
    assert torch.equal(torch.stack(started + [batch.sample for batch in resumed]), torch.stack(plain))


@pytest.fixture
def small_dataset(screen):
    return ShardDataset(screen)


@pytest.mark.parametrize(("modality", "held"), [("compound", "b"), ("crispr", "g1"), ("orf", "o1")])
def test_held_out_perturbations_never_leave_the_loader(table, modality, held):
    """Walk three epochs of the loader; what is held out, of whatever modality, is in no batch."""
    training = table[table[schema.PERTURBATION] != held]
    module = TableDataModule(training, 3, sampler_options={"bag_size": 2})
    loader, seen = module.train_dataloader(), set()
    for _ in range(3):
        for batch in loader:
            seen |= set(module.mixture.fields[schema.PERTURBATION].iloc[batch.sample.flatten().numpy()])
    assert seen == set(table[schema.PERTURBATION]) - {held}
    assert held not in set(module.table.frame[schema.PERTURBATION])


def test_well_and_perturbation_profiles_pool_bags(table):
    encoder = create_encoder("profile_mlp", channels=["profile"], feature_dim=4, embed_dim=3, width=8, blocks=1).eval()
    dataset = TableDataset(table)
    wells = embed_features(encoder, dataset, batch_size=5)
    assert len(wells) == 24
    row = wells[(wells[schema.PLATE] == "P1") & (wells[schema.WELL] == "A03")].iloc[0]
    x = torch.tensor(table[list("wxyz")].to_numpy(np.float32))
    alone = encoder(encoder.preprocess(x[14][None, None]))[0]
    np.testing.assert_allclose(
        row[[c for c in wells if c.startswith("embedding")]].astype(float), alone.detach(), rtol=1e-4, atol=1e-6
    )
    pooled = embed_features(encoder, dataset, "perturbation")
    assert sorted(pooled[schema.PERTURBATION]) == ["DMSO", "a", "b", "c", "g1", "o1"]
    own = np.flatnonzero(table[schema.PERTURBATION] == "b")
    bag = encoder(encoder.preprocess(x[own][None, :, None]))[0].detach()
    got = pooled[pooled[schema.PERTURBATION] == "b"].iloc[0]
    np.testing.assert_allclose(
        got[[c for c in pooled if c.startswith("embedding")]].astype(float), bag, rtol=1e-4, atol=1e-6
    )


def test_a_profile_that_is_not_finite_is_named(table):
    with pytest.raises(ValueError, match=r"row 7 .* x"):
        TableDataset(table.assign(x=table["x"].where(table.index != 7)))


def test_features_keep_the_index_of_their_pixels(small_dataset, tmp_path):
    encoder = create_encoder("intensity_statistics")
    folder = write_features(
        encoder, small_dataset, tmp_path / "features", dtype="float32", progress=False, batch_size=7
    )
    whole = FeatureDataset(folder)
    rows = np.arange(len(small_dataset))
    pixels, (low, high) = small_dataset.read(rows), small_dataset.intensities(rows)
    expected = encoder(encoder.preprocess(*map(torch.from_numpy, (pixels, low, high))))
    np.testing.assert_allclose(whole.read(rows)[:, 0], expected, rtol=1e-5, atol=1e-6)
    plates = small_dataset.fields[schema.PLATE]
    write_splits(whole, pd.Series(np.where(plates == plates.iloc[0], "train", "heldout"), index=plates.index))
    module = FeatureDataModule([{"root": str(folder)}], 2, split="train")
    for batch in module.train_dataloader():
        assert set(whole.fields[schema.PLATE].iloc[whole.fields_of(batch.sample.flatten().numpy())]) == {plates.iloc[0]}
    mean, std = FeatureDataset(folder, "train").channel_statistics()
    assert mean.shape == std.shape == whole.shape
    with pytest.raises(FileExistsError):
        write_features(encoder, small_dataset, folder, progress=False)


def test_an_unfinished_folder_never_bears_its_name(small_dataset, tmp_path):
    with (
        pytest.raises(ValueError, match="got no features"),
        FeatureWriter(tmp_path / "f", small_dataset, (1, 2), {}) as writer,
    ):
        writer.write(np.array([0]), np.zeros((1, 1, 2)))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"no features\.npy"):
        FeatureDataset(small_dataset.folder)
